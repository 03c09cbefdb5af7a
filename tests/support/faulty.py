"""Networks and objectives that are right, or wrong in one way, for the test that authors run."""

import os
import random
from typing import Any

import torch
from torch import Tensor, nn

from ccsd.distillation.losses import segmentation_loss
from ccsd.plugins.interface import Segmenting, Step
from preprocess.task import Task


class Right(nn.Module):
    """Composes: a convolution by sequence, the mean over the subset, a convolution."""

    multiple: tuple[int, ...] = (2, 2, 2)

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv3d(1, 4, 3, padding=1) for _ in task.modalities)
        self.norm = nn.GroupNorm(1, 4)
        self.head = nn.Conv3d(4, len(task.regions), 1)

    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        maps = [own(image[:, m : m + 1]) for m, own in enumerate(self.convolutions)]
        return torch.stack(maps, 1)

    def compose(self, features: Tensor, subsets: Tensor) -> Tensor:
        share = (subsets / subsets.sum(-1, keepdim=True)).to(features.dtype)
        return torch.einsum("kbm,bmcdhw->kbcdhw", share, features)

    def decode(self, composed: Tensor) -> Any:
        found = self.head(self.norm(composed.flatten(0, 1)).relu())
        return found.unflatten(0, composed.shape[:2])


class Shapes(Right):
    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed)[:, :, :1]


class Leaks(Right):
    def compose(self, features: Tensor, subsets: Tensor) -> Tensor:
        return super().compose(features, subsets) + 0.01 * features.mean(1)


class Blind(Right):
    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        return super().encode(torch.cat([image[:, :-1], 0 * image[:, -1:]], 1), available)


class Unused(Right):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.spare = nn.Linear(2, 2)


class Batched(Right):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.norm = nn.BatchNorm3d(4)


class Erratic(Right):
    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed) * random.uniform(0.5, 1.5)


class Forgets(Right):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.scale = torch.rand(()) + 0.5

    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed) * self.scale


class Coarse(Right):
    def decode(self, composed: Tensor) -> Tensor:
        found = super().decode(composed)
        exact = found.to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else found.dtype)
        return (exact + 300) - 300


class Sizes(Right):
    multiple = (1, 1, 1)

    def decode(self, composed: Tensor) -> Tensor:
        halved = super().decode(composed)[..., ::2, ::2, ::2].flatten(0, 1)
        return nn.functional.interpolate(halved, scale_factor=2.0).unflatten(0, composed.shape[:2])


class OneSize(Right):
    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        if image.shape[-3:] != (16, 16, 16):
            raise ValueError("patches of 16 x 16 x 16 only")
        return super().encode(image, available)


class Breaks(Right):
    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        raise RuntimeError("something of the author's own")


class Constant(Right):
    """Its loss has a gradient that is 0."""

    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed) * 0


class Counts(Right):
    """Has state that no checkpoint has."""

    calls = 0

    def decode(self, composed: Tensor) -> Tensor:
        self.calls += self.training
        return super().decode(composed) * (1 + 0.01 * self.calls)


class Learning:
    """An objective that is right."""

    def __init__(self, task: Task, power: float = 1.0) -> None:
        self.power = power

    def __call__(self, network: Segmenting, step: Step) -> Any:
        return self.of(self.losses(network, step), step)

    def losses(self, network: Segmenting, step: Step) -> Tensor:
        features = network.encode(step.image, step.available)
        (logits, *_) = network.decode_levels(features, step.available[None], 1)
        return segmentation_loss(logits[0], step.target)

    def of(self, losses: Tensor, step: Step) -> Any:
        chance = torch.tensor([float(rng.random()) for rng in step.generators])
        weighted = (losses * (1 + chance)).mean()
        return weighted, {"plain": losses.mean()}


class Summed(Learning):
    def of(self, losses: Tensor, step: Step) -> Any:
        return losses.sum(), {}


class Detached(Learning):
    def of(self, losses: Tensor, step: Step) -> Any:
        return losses.mean().detach(), {}


class Restless(Learning):
    def of(self, losses: Tensor, step: Step) -> Any:
        return losses.mean() * random.uniform(0.5, 1.5), {}


class Ranked(Learning):
    """Knows which process it is on."""

    def of(self, losses: Tensor, step: Step) -> Any:
        return losses.mean() * (1 + int(os.environ.get("RANK", "0"))), {}


class Careless(Learning):
    """Reads sequences that are not available."""

    def losses(self, network: Segmenting, step: Step) -> Tensor:
        everything = torch.ones_like(step.available)
        (logits, *_) = network.decode_levels(network.encode(step.image, everything), everything[None], 1)
        return segmentation_loss(logits[0], step.target)


class Partial(Learning):
    """Uses a part of the network."""

    def losses(self, network: Any, step: Step) -> Tensor:
        features = network.encode(step.image, step.available)
        return features.shared.square().flatten(1).mean(1)


class Weighing(nn.Module):
    """An objective that is right and has weights of its own."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.losses = Learning(task).losses
        self.weights = nn.Linear(1, 1)

    def forward(self, network: Segmenting, step: Step) -> Any:
        losses = self.losses(network, step)
        doubt = self.weights(losses[:, None]).square().mean()
        return losses.mean() + doubt, {"doubt": doubt}


class Draws(Right):
    """Right: draws by torch's generator, in training alone, and not by a dropout layer."""

    def decode(self, composed: Tensor) -> Tensor:
        found = super().decode(composed)
        kept = torch.rand(composed.shape[:2], device=found.device) > 0.3
        return found * kept[..., None, None, None, None] if self.training else found


class Neighbours(Right):
    """Features of a sequence say what else is there."""

    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        found = super().encode(image, available)
        return torch.cat([found[:, :, :1] + available.sum(1)[:, None, None, None, None, None], found[:, :, 1:]], 2)


class Fading(Right):
    """Changes in place what the next set gets."""

    def compose(self, features: Tensor, subsets: Tensor) -> Tensor:
        found = super().compose(features, subsets)
        features[:, :, 0] *= 0.5
        return found


class Probable(Right):
    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed).sigmoid()


class Rooted(Right):
    """The root of 0, where a sequence is missing, has no gradient."""

    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        power = (image * self.head.bias[0]).square().sum((2, 3, 4), keepdim=True).sqrt()
        return super().encode(image + power, available)


class Private(Right):
    """Draws by a generator of its own, which no checkpoint has."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.rng = torch.Generator().manual_seed(0)

    def encode(self, image: Tensor, available: Tensor) -> Tensor:
        noise = torch.randn(image.shape, generator=self.rng) if self.training else 0
        return super().encode(image + noise, available)


class Restive(Right):
    """Draws in evaluation, too."""

    def decode(self, composed: Tensor) -> Tensor:
        return super().decode(composed) * (1 + torch.rand((), device=composed.device))


class Pooled(Learning):
    """Dice of the voxels of all samples together."""

    def losses(self, network: Segmenting, step: Step) -> Tensor:
        features = network.encode(step.image, step.available)
        found = network.decode_levels(features, step.available[None], 1)[0][0].float().sigmoid()
        axes = (0, 2, 3, 4)
        overlap, total = (found * step.target).sum(axes), found.sum(axes) + step.target.sum(axes)
        return 1 - 2 * overlap / (total + 1)

    def of(self, losses: Tensor, step: Step) -> Any:
        return losses.mean(), {}


class Hopeful(Learning):
    """Divides by the voxels of a region, of which a patch may have none."""

    def losses(self, network: Segmenting, step: Step) -> Tensor:
        features = network.encode(step.image, step.available)
        found = network.decode_levels(features, step.available[None], 1)[0][0].float().sigmoid()
        axes = (2, 3, 4)
        return 1 - ((found * step.target).sum(axes) / step.target.sum(axes)).mean(1)
