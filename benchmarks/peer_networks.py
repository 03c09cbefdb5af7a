"""Published networks as plugins, from the user's checkouts: this file has only adapters, and none of their code.

Each factory takes `checkout`, the folder of the clone, and `patch`, the side of the cubic patch. An adapter puts the
sequences into the order of the network, passes the mask on, and turns probabilities of classes into logits of regions.
RFNet, ShaSpec and IM-Fuse have no licence; mmFormer is under the Apache License 2.0.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ccsd.distillation.losses import segmentation_loss
from ccsd.errors import UsageError
from ccsd.plugins.interface import Segmenting, Step
from preprocess.task import Task

SOURCES = {
    "rfnet": "github.com/dyh127/RFNet",
    "mmformer": "github.com/YaoZhang93/mmFormer",
    "shaspec": "github.com/billhhh/ShaSpec",
    "imfuse": "github.com/AImageLab-zip/IM-Fuse",
}
NEEDS = {
    "imfuse": "It needs mamba_ssm, whose kernels run on CUDA GPUs only: on a machine without one, omit this peer",
    "shaspec": "It draws pictures with scikit-learn: pip install scikit-learn",
}
EPSILON = 1e-6


class RFNet(nn.Module):
    """RFNet, mmFormer and IM-Fuse: probabilities of classes, in training also by modality and at coarser levels."""

    ORDER = ("flair", "t1ce", "t1", "t2")
    UNIT = 16

    def __init__(self, task: Task, network: nn.Module, patch: int) -> None:
        super().__init__()
        self.network, self.order, self.multiple = network, _order(task, self.ORDER), (patch, patch, patch)
        members = [[name in classes for name in task.classes] for classes in task.regions.values()]
        self.register_buffer("members", torch.tensor(members).float(), persistent=False)

    def forward(self, image: Tensor, available: Tensor) -> Tensor | list[Tensor]:
        """Return logits of the regions, in training those of all outputs."""
        if tuple(image.shape[-3:]) != self.multiple:
            raise ValueError(f"built for patches of {' x '.join(map(str, self.multiple))}")
        self.network.is_training = self.training
        found = self.network(image[:, self.order], available[:, self.order])
        if not self.training:
            return self.regions(found)
        fused, by_modality, coarser = found
        return [self.regions(output) for output in (fused, *by_modality, *coarser)]

    def regions(self, classes: Tensor) -> Tensor:
        """Turn B x (1 + classes) probabilities, the background first, into logits of B x regions."""
        inside = torch.einsum("rc,bcdhw->brdhw", self.members, classes[:, 1:].float())
        outside = classes[:, :1].float() + torch.einsum("rc,bcdhw->brdhw", 1 - self.members, classes[:, 1:].float())
        return torch.log(inside + EPSILON) - torch.log(outside + EPSILON)


class ShaSpec(nn.Module):
    """ShaSpec: logits of ET, WT and TC; availability is an argument for a whole batch, so samples run one by one."""

    ORDER = ("flair", "t1", "t1ce", "t2")
    REGIONS = ("ET", "WT", "TC")

    def __init__(self, task: Task, network: nn.Module, patch: int) -> None:
        super().__init__()
        if set(task.regions) != set(self.REGIONS):
            raise UsageError(
                f"shaspec has outputs for {', '.join(self.REGIONS)}, the task for {', '.join(task.regions)}"
            )
        self.network, self.order, self.multiple = network, _order(task, self.ORDER), (patch, patch, patch)
        self.outputs = [self.REGIONS.index(name) for name in task.regions]

    def forward(self, image: Tensor, available: Tensor) -> Tensor:
        """Return logits of the regions."""
        found = []
        with mock.patch.object(nn.functional, "_verify_spatial_size"):  # its pooled branch normalises single voxels
            for one, there in zip(image[:, self.order], available[:, self.order].tolist(), strict=True):
                mode = ",".join(str(number) for number, shown in enumerate(there) if shown)
                found.append(self.network(one[None], mode=mode)[0])
        return torch.cat(found)[:, self.outputs]


class OneMask:
    """Train as these networks are trained: one random set of modalities per sample, and all outputs supervised.

    The loss of each output is ours, soft Dice and cross-entropy of the regions; the sum over the outputs is theirs.
    """

    def __init__(self, task: Task) -> None:
        self.count = len(task.modalities)

    def __call__(self, network: Segmenting, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum over the outputs, and the loss of the one that counts."""
        levels = network.network(step.image, self.draw(step))  # all images: the networks mask features themselves
        outputs = [levels] if isinstance(levels, Tensor) else levels
        losses = torch.stack([segmentation_loss(output, step.target).mean() for output in outputs])
        return losses.sum(), {"output": losses[0]}

    def draw(self, step: Step) -> Tensor:
        """Draw one of the sets that are not empty for each sample; phantoms have all modalities."""
        numbers = np.array([rng.integers(1, 2**self.count) for rng in step.generators])
        rows = torch.from_numpy(numbers[:, None] >> np.arange(self.count) & 1).bool().to(step.image.device)
        return torch.where((rows & step.available).any(1, keepdim=True), rows & step.available, step.available)


def rfnet(task: Task, checkout: str, patch: int) -> nn.Module:
    """Return RFNet; sides are multiples of 8, at least 16."""
    with _imported("rfnet", Path(checkout), "models") as module:
        return RFNet(task, module.Model(num_cls=1 + len(task.classes)), patch)


def mmformer(task: Task, checkout: str, patch: int) -> nn.Module:
    """Return mmFormer; its number of tokens, 8^3 for 128^3 voxels, is set for the patch."""
    with _imported("mmformer", Path(checkout) / "mmformer", "mmformer") as module:
        module.patch_size = _tokens("mmformer", patch)
        return RFNet(task, module.Model(num_cls=1 + len(task.classes)), patch)


def imfuse(task: Task, checkout: str, patch: int) -> nn.Module:
    """Return IM-Fuse with interleaved tokens and Mamba in the skips, as its README trains it; needs a GPU."""
    with _imported("imfuse", Path(checkout) / "IMFuse", "IMFuse") as module:
        module.patch_size, module.input_patch_size = _tokens("imfuse", patch), patch
        network = module.IMFuse(num_cls=1 + len(task.classes), interleaved_tokenization=True, mamba_skip=True)
        return RFNet(task, network, patch)


def shaspec(task: Task, checkout: str, patch: int) -> nn.Module:
    """Return ShaSpec as its training script builds it; sides are multiples of 32."""
    if patch % 32:
        raise UsageError(f"shaspec: patches have sides that are multiples of 32, not {patch}")
    with _imported("shaspec", Path(checkout), "DualNet_SS") as module:
        made = module.DualNet_SS(
            args=None, norm_cfg="IN", activation_cfg="LeakyReLU", num_classes=3, weight_std=True, self_att=False
        )
        return ShaSpec(task, made, patch)


@contextmanager
def _imported(peer: str, folder: Path, name: str) -> Iterator[ModuleType]:
    """Import a module of a checkout; afterwards drop its modules, which have names such as `layers`."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"{peer}: {folder} cannot be imported ({error}); use a clone of {SOURCES[peer]}. {NEEDS.get(peer, '')}"
            ) from None
        yield module
    finally:
        sys.path.remove(str(folder))
        for other in set(sys.modules) - before:
            file = getattr(sys.modules[other], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[other]


def _order(task: Task, theirs: tuple[str, ...]) -> list[int]:
    """Return the number of our sequence for each of theirs."""
    if set(task.modalities) != set(theirs):
        raise UsageError(
            f"the network takes {', '.join(theirs)}, the task {task.name} has {', '.join(task.modalities)}"
        )
    return [task.modalities.index(name) for name in theirs]


def _tokens(peer: str, patch: int) -> int:
    if patch % 16 or patch < 32:
        raise UsageError(f"{peer}: patches have sides that are multiples of 16 and at least 32, not {patch}")
    return patch // 16


def options(peer: str, checkout: Path, patch: int) -> dict[str, Any]:
    """Return the `model` section for a peer."""
    return {"backbone": f"peer_networks:{peer}", "options": {"checkout": str(checkout.resolve()), "patch": patch}}
