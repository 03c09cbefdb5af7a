"""No two kinds of draw share a generator, whatever the seed, the step and the sample."""

from itertools import product

import numpy as np

from ccsd.randomness import Stream, generator


def first_numbers(rng: np.random.Generator) -> bytes:
    return rng.integers(2**62, size=4).tobytes()


def test_no_two_streams_share_a_key() -> None:
    keys = list(product(Stream, range(4), range(4), range(4)))
    numbers = {first_numbers(generator(*key)) for key in keys}
    assert len(numbers) == len(keys)


def test_no_stream_meets_a_generator_made_without_one() -> None:
    """Phantoms and splits draw from keys like [seed] and [seed, case, part], which NumPy pads with zeros."""
    ours = {first_numbers(generator(stream, seed, step)) for stream, seed, step in product(Stream, range(4), range(4))}
    others = [np.random.default_rng(key[:length]) for key in product(range(4), repeat=3) for length in (1, 2, 3)]
    assert ours.isdisjoint(first_numbers(rng) for rng in others)


def test_equal_keys_draw_equal_numbers() -> None:
    assert first_numbers(generator(Stream.PATCH, 1, 2, 3)) == first_numbers(generator(Stream.PATCH, 1, 2, 3))
