"""All chance of a training: one named stream for each kind of draw, and a generator for each draw of it.

A draw depends on its stream, the seed, the step and the sample alone. So any number of processes draws together what
one process draws, a resumed run draws what an undisturbed run draws, and no kind of draw repeats another's numbers.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What is drawn. The values are part of every key: a new kind of draw gets a new one, none is used again.

    They are far from any seed that people choose, so that no stream meets the generators of phantoms and splits either.
    """

    CASE_ORDER = 0x5EED0001
    """Order of the cases in one epoch; the epoch takes the place of the step."""
    PATCH = 0x5EED0002
    """Where a patch lies."""
    AUGMENTATION = 0x5EED0003
    SUBSETS = 0x5EED0004
    """Partial sets of modalities that a step visits."""
    REMOVAL = 0x5EED0005
    """Order of removal of DMCD's criterion `random`."""
    PLUGIN = 0x5EED0006
    """What an objective of one's own draws."""
    LAYERS = 0x5EED0007
    """What layers of a plugin draw, such as dropout: the seed of torch."""
    SIZES = 0x5EED0008
    """Which partial set of those above a step visits, where it visits one."""
    PATH_STEPS = 0x5EED0009
    """Which step of DMCD's path is distilled, where it is one."""


def generator(stream: Stream, seed: int, step: int, sample: int = 0) -> np.random.Generator:
    """Return the generator of one draw.

    The stream comes first in the key, and every key has four numbers: NumPy pads shorter keys with zeros, so that
    without it the draw for sample 0 would be that of a key without a sample.
    """
    return np.random.default_rng([stream, seed, step, sample])
