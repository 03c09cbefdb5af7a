"""All randomness of a training: one named stream for each kind of draw, and a generator for each single draw.

A draw depends only on its stream, the seed, the step and the sample. So any number of processes together draw the same
as one process, a resumed run draws the same as an uninterrupted one, and no two kinds of draw share numbers.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What is drawn. The values are part of every key: a new kind of draw gets a new value, and none is ever reused.

    They are far from any seed that users choose, so that no stream coincides with those of phantoms and splits.
    """

    CASE_ORDER = 0x5EED0001
    """Order of the cases in one epoch; the epoch replaces the step."""
    PATCH = 0x5EED0002
    """Position of a patch."""
    AUGMENTATION = 0x5EED0003
    SUBSETS = 0x5EED0004
    """Partial sets of modalities that a step visits."""
    REMOVAL = 0x5EED0005
    """Order of removal for DMCD's criterion `random`."""
    PLUGIN = 0x5EED0006
    """Draws of a user's own objective."""
    LAYERS = 0x5EED0007
    """Draws in layers of a plugin, such as dropout: the seed of torch."""
    SIZES = 0x5EED0008
    """Which of the partial sets above a step visits, if it visits only one."""
    PATH_STEPS = 0x5EED0009
    """Which step of DMCD's path is distilled, if it is only one."""


def generator(stream: Stream, seed: int, step: int, sample: int = 0) -> np.random.Generator:
    """Return the generator of one draw.

    The stream comes first in the key, and every key has four numbers: NumPy pads shorter keys with zeros, so the draw
    for sample 0 would otherwise equal that of a key without a sample.
    """
    return np.random.default_rng([stream, seed, step, sample])
