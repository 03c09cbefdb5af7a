"""Read the patches of a step into a slot."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccsd.data.batch import Corner, Patch, Slots
from ccsd.data.sampling import case_number, corner, samples_of
from preprocess.errors import InputError, first_few
from preprocess.source.geometry import Box
from preprocess.store.reader import CaseStore

Filled = tuple[int, int, tuple[tuple[bool, ...], ...], tuple[str, ...], tuple[Corner, ...]]
"""What is sent between processes instead of a batch: step, slot, available modalities, cases, corners."""


class PatchReader:
    """Reads the samples of one process. Cheap to send to another process: it holds paths, not open files.

    Parameters
    ----------
    data
        Folder with the stores.
    cases
        Names of the cases; their order does not matter.
    modalities
        The M sequences of the task.
    patch
        D, H, W of a patch; a case that is smaller is padded with 0.
    global_batch, rank, world
        Samples per step over all processes, number of this process, number of processes.
    foreground
        Share of patches centred on a tumour voxel.
    checked
        Whether `check_cases` has been called, by one process for all; otherwise it is called here.

    Raises
    ------
    InputError
        If a case is missing or damaged, or has no segmentation.
    """

    def __init__(
        self,
        data: Path,
        cases: Sequence[str],
        *,
        modalities: Sequence[str],
        patch: Patch,
        global_batch: int,
        rank: int,
        world: int,
        seed: int,
        foreground: float,
        checked: bool = False,
    ) -> None:
        if not checked:
            check_cases(data, cases)
        self.data, self.cases, self.patch = data, sorted(cases), patch
        self.modalities = tuple(modalities)
        self.global_batch, self.seed, self.foreground = global_batch, seed, foreground
        # A process without a sample of its own computes a copy to stay in step with the others; it has no weight.
        self.samples = samples_of(rank, world, global_batch) or (0,)

    def fill(self, step: int, slots: Slots, slot: int) -> Filled:
        """Read the patches of a step into a slot.

        Raises
        ------
        InputError
            If a store is missing or damaged.
        """
        image, label = slots.image[slot].numpy(), slots.label[slot].numpy()
        cases = [self._case(step, sample) for sample in self.samples]
        corners = tuple(self._corner(step, sample, case) for sample, case in zip(self.samples, cases, strict=True))
        for position, (case, first) in enumerate(zip(cases, corners, strict=True)):
            read_patch(case.store, first, image[position], label[position])
        available = tuple(tuple(m in case.store.modalities for m in self.modalities) for case in cases)
        return step, slot, available, tuple(case.store.case for case in cases), corners

    def _case(self, step: int, sample: int) -> "_Case":
        number = case_number(self.seed, step, sample, global_batch=self.global_batch, cases=len(self.cases))
        return _known(self.data, self.cases[number])

    def _corner(self, step: int, sample: int, case: "_Case") -> Corner:
        return corner(
            self.seed,
            step,
            sample,
            shape=case.store.shape,
            patch=self.patch,
            foreground=case.foreground,
            share=self.foreground,
        )


@dataclass(frozen=True)
class _Case:
    """What a process keeps of a case: its metadata and lists of chunks, no voxels and no open file."""

    store: CaseStore
    foreground: Mapping[int, Sequence[int]]


def read_patch(store: CaseStore, first: Corner, image: NDArray[np.float16], label: NDArray[np.uint8]) -> None:
    """Fill `image` (M x D x H x W) and `label` with a patch; 0 outside the case and where a modality is absent."""
    patch = label.shape
    inside: list[slice] = []
    target: list[slice] = []
    for start, size, length in zip(first, patch, store.shape, strict=True):
        low, high = max(start, 0), min(start + size, length)
        inside.append(slice(low, high))
        target.append(slice(low - start, high - start))
    box: Box = (inside[0], inside[1], inside[2])
    if any(part.stop - part.start < size for part, size in zip(target, patch, strict=True)):
        image.fill(0)
        label.fill(0)
    store.read_channels(store.modalities, box, image[(slice(None), *target)])
    store.read_label(box, label[tuple(target)])


def check_cases(data: Path, cases: Sequence[str]) -> None:
    """Reject training cases that are not converted or have no segmentation.

    This opens every store, so on a shared file system one process does it for all.

    Raises
    ------
    InputError
        If there is no case, or one is missing, damaged or without a segmentation.
    """
    if not cases:
        raise InputError(f"{data}: no case to train on; see split.tsv there")
    bare = [case for case in cases if not CaseStore(data, case).has_label]
    if bare:
        raise InputError(
            f"{data}: training cases without a segmentation: {first_few(sorted(bare))}; "
            "remove them from split.tsv, or add the segmentations and convert again"
        )


@cache
def _known(data: Path, case: str) -> _Case:
    """Read the metadata of a case once: cases come in random order, so a smaller cache would rarely have the next."""
    store = CaseStore(data, case, copy_with_torch)
    # Python's integers would take ten times the memory.
    foreground = {number: array("q", voxels) for number, voxels in store.meta.foreground.items()}
    store.meta = store.meta.model_copy(update={"foreground": {}})
    return _Case(store, foreground)


def copy_with_torch(target: NDArray[Any], source: NDArray[Any]) -> None:
    """Fill an array with another, several times as fast as NumPy from float16 to float32."""
    torch.from_numpy(target).copy_(torch.from_numpy(source))
