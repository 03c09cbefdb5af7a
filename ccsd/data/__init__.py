"""Patches for training: where they are taken from, how they reach the training process, how they are augmented."""

from ccsd.data.augment import augment
from ccsd.data.batch import Batch
from ccsd.data.patches import PatchReader
from ccsd.data.stream import PatchStream, check_shared_memory

__all__ = ["Batch", "PatchReader", "PatchStream", "augment", "check_shared_memory"]
