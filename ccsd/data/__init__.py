"""Patches for training: where they lie, how they reach the training process, how they are varied."""

from ccsd.data.augment import augment
from ccsd.data.batch import Batch
from ccsd.data.patches import PatchReader
from ccsd.data.stream import PatchStream

__all__ = ["Batch", "PatchReader", "PatchStream", "augment"]
