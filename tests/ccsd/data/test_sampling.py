"""What a sample shows is a function of (seed, step, sample) alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ccsd.data.sampling import case_number, corner, samples_of

sizes = st.integers(1, 20)


@given(world=st.integers(1, 9), global_batch=st.integers(1, 40))
def test_processes_share_the_samples(world: int, global_batch: int) -> None:
    blocks = [samples_of(rank, world, global_batch) for rank in range(world)]
    assert [i for block in blocks for i in block] == list(range(global_batch))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@given(cases=st.integers(1, 12), batch=st.integers(1, 5), seed=st.integers(0, 3))
def test_each_pass_shows_every_case_once(cases: int, batch: int, seed: int) -> None:
    shown = [
        case_number(seed, step, i, global_batch=batch, cases=cases) for step in range(3 * cases) for i in range(batch)
    ]
    for start in range(0, len(shown) - cases + 1, cases):
        assert sorted(shown[start : start + cases]) == list(range(cases))


def test_passes_differ() -> None:
    passes = [[case_number(0, step, 0, global_batch=1, cases=20) for step in range(k, k + 20)] for k in (0, 20)]
    assert passes[0] != passes[1]


@given(
    shape=st.tuples(sizes, sizes, sizes),
    patch=st.tuples(sizes, sizes, sizes),
    seed=st.integers(0, 9),
    step=st.integers(0, 99),
)
def test_corners_stay_as_far_inside_as_they_can(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int, step: int
) -> None:
    first = corner(seed, step, 0, shape=shape, patch=patch, foreground={}, share=0.5)
    assert first == corner(seed, step, 0, shape=shape, patch=patch, foreground={}, share=0.5)
    for start, size, length in zip(first, patch, shape, strict=True):
        if size <= length:
            assert 0 <= start <= length - size
        else:
            assert length - size <= start <= 0


@given(voxel=st.tuples(*[st.integers(0, 19)] * 3), step=st.integers(0, 50))
def test_a_foreground_patch_holds_its_voxel(voxel: tuple[int, int, int], step: int) -> None:
    flat = int(np.ravel_multi_index(voxel, (20, 20, 20)))
    first = corner(0, step, 0, shape=(20, 20, 20), patch=(6, 7, 8), foreground={3: [flat]}, share=1.0)
    assert all(start <= v < start + size for v, start, size in zip(voxel, first, (6, 7, 8), strict=True))


def test_the_share_of_foreground_patches() -> None:
    foreground = {1: [0], 2: [int(np.ravel_multi_index((29, 29, 29), (30, 30, 30)))]}
    corners = [
        corner(0, step, 0, shape=(30,) * 3, patch=(4,) * 3, foreground=foreground, share=0.6) for step in range(600)
    ]
    first, second = (np.mean([c == end for c in corners]) for end in ((0, 0, 0), (26, 26, 26)))
    assert abs(first - 0.3) < 0.06, "each class is as likely as the other"
    assert abs(second - 0.3) < 0.06
