"""A batch of patches, and the memory that batches are read into."""

from dataclasses import dataclass

import torch
from torch import Tensor

Corner = tuple[int, int, int]
Patch = tuple[int, int, int]


@dataclass(frozen=True)
class Batch:
    """Patches of one step on one process. The tensors are valid until the next batch is drawn.

    Attributes
    ----------
    step
        Number of the training step.
    image
        B x M x D x H x W float16 as it is stored, 0 outside the brain, outside the case, and for absent modalities.
    label
        B x D x H x W uint8, classes, 0 for the background.
    available
        B x M bool.
    cases, corners
        By sample: name of the case, and the patch's first voxel in it (negative where the patch extends beyond it).
    samples
        Numbers of the samples among those of all processes.
    """

    step: int
    image: Tensor
    label: Tensor
    available: Tensor
    cases: tuple[str, ...]
    corners: tuple[Corner, ...]
    samples: tuple[int, ...]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy what the host has computed to a device, without waiting for it."""
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Slots:
    """Memory for a fixed number of batches, allocated once and reused.

    A fresh shared segment for each batch costs several times as much as reading the batch.
    """

    def __init__(self, count: int, batch: int, modalities: int, patch: Patch, *, shared: bool) -> None:
        self.image = torch.zeros(count, batch, modalities, *patch, dtype=torch.float16)
        self.label = torch.zeros(count, batch, *patch, dtype=torch.uint8)
        if shared:
            self.image.share_memory_()  # type: ignore[no-untyped-call]
            self.label.share_memory_()  # type: ignore[no-untyped-call]

    def pin(self) -> None:
        """Lock the memory, so that a GPU copies from it directly and the host need not wait."""
        for tensor in (self.image, self.label):
            code = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)  # type: ignore[no-untyped-call]
            torch.cuda.check_error(int(code))

    @staticmethod
    def bytes_each(batch: int, modalities: int, patch: Patch) -> int:
        """Return the size of one slot."""
        voxels = batch * patch[0] * patch[1] * patch[2]
        return voxels * (2 * modalities + 1)
