"""Means over the steps between two records, and how often each modality was removed first, over all processes."""

import torch
from torch import Tensor

from ccsd.training.distributed import Process
from preprocess.modalities import MODALITIES

TERMS = ("loss", "supervised", "hmsd", "dmcd", "shared", "specific")
BASE = len(MODALITIES) + 1
"""A path is a number with one digit per step: 0 nothing removed, 1 + m modality m removed."""


class Tally:
    """Adds up on the device, without waiting for it, until asked."""

    def __init__(self, device: torch.device) -> None:
        self._terms = torch.zeros(len(TERMS) + 1, device=device)
        self._paths = torch.zeros(BASE ** (len(MODALITIES) - 1), device=device)

    def add(self, outputs: dict[str, Tensor]) -> None:
        """Add one step's terms (scalars) and `removed` (steps x samples, -1 for none)."""
        self._terms[:-1] += torch.stack([outputs[name].detach().float() for name in TERMS])
        self._terms[-1] += 1
        removed = outputs["removed"]
        if len(removed):
            digits = BASE ** torch.arange(len(removed), device=removed.device)
            code = ((removed + 1) * digits[:, None]).sum(0)
            self._paths.index_add_(0, code, torch.ones_like(code, dtype=torch.float32))

    def take(self, process: Process) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return mean terms and removal shares since the last time; every process must call this.

        Removal is `{"first": {modality: share}, "paths": {"t1ce>flair>t2": share}}`, empty without DMCD.
        """
        *sums, count = process.sum(self._terms).tolist()
        paths = process.sum(self._paths).tolist()
        self._terms.zero_()
        self._paths.zero_()
        terms = {name: total / count for name, total in zip(TERMS, sums, strict=True)}
        return terms, _removal({_names(code): number for code, number in enumerate(paths) if number and code})


def _names(code: int) -> tuple[str, ...]:
    names = []
    while code:
        code, digit = divmod(code, BASE)
        names.append(MODALITIES[digit - 1])
    return tuple(names)


def _removal(paths: dict[tuple[str, ...], float]) -> dict[str, dict[str, float]]:
    total = sum(paths.values())
    if not total:
        return {}
    first = {m: sum(n for path, n in paths.items() if path[0] == m) / total for m in MODALITIES}
    return {
        "first": first,
        "paths": {">".join(path): n / total for path, n in sorted(paths.items(), key=lambda i: -i[1])},
    }
