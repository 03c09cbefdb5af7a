"""The interface for your own network or objective. docs/how-to/plugins.md has a worked example of each.

A factory is called with the task, which names the sequences and the regions, and with the keys of `model.options` or
`distillation.options`.

Shapes: K subsets, B batch, M sequences, R regions, D H W space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class ComposingBackbone(Protocol):
    """A network that encodes each sequence once and decodes any set of them: it can be trained with every method.

    It is a `torch.nn.Module`. A sample's logits must not depend on other samples, because the number of samples that
    are computed together differs between settings; so there must be no batch normalisation. A module must use its
    weights in its own `forward`, because ZeRO stage 3 gathers them there.
    """

    multiple: tuple[int, int, int]
    """What depth, height and width of an input must be multiples of."""

    def encode(self, image: Tensor, available: Tensor) -> Any:
        """Encode B x M x D x H x W, z-scored; what is not `available` (B x M bool) is 0 and will not be composed."""

    def compose(self, features: Any, subsets: Tensor) -> Any:
        """Return the decoder's input for K x B x M subsets; it must contain nothing of sequences outside a subset."""

    def decode(self, composed: Any) -> Tensor | Sequence[Tensor]:
        """Return logits K x B x R x D x H x W; in training, coarser ones may follow in a list, finer first."""


class AnyNetwork(Protocol):
    """Any network: it can be trained with the methods `full` and `dropout`, and with its author's objectives.

    It is a `torch.nn.Module`, and follows the rules of `ComposingBackbone` for samples and weights.
    """

    multiple: tuple[int, int, int]
    """What depth, height and width of an input must be multiples of."""

    def __call__(self, image: Tensor, available: Tensor) -> Tensor | Sequence[Tensor]:
        """Return logits B x R x D x H x W; in training, coarser ones may follow in a list, finer first.

        `image` is B x M x D x H x W, z-scored, 0 where a sequence is not `available` (B x M bool).
        """


class Segmenting(Protocol):
    """The network as an objective sees it, whichever it is."""

    network: Any
    """The author's own module; absent for ours."""

    def encode(self, image: Tensor, available: Tensor) -> Any:
        """Return the features of B x M x D x H x W; what is not available is never seen."""

    def decode_levels(self, features: Any, subsets: Tensor, decode_batch: int) -> list[Tensor]:
        """Return logits K x B x R x D x H x W of K x B x M subsets, and coarser ones if the network has them.

        For a network that composes, each subset costs a decode; for any other, a whole pass.
        """


@dataclass(frozen=True)
class Step:
    """What an objective learns from: a micro-batch, which is the whole batch or some of its samples."""

    image: Tensor
    """B x M x D x H x W float32, z-scored and augmented, 0 where a sequence is not available."""
    target: Tensor
    """B x R x D x H x W float32, 1 inside a region."""
    available: Tensor
    """B x M bool; at least one in each row."""
    number: int
    """Number of the step, from 0."""
    total: int
    """Steps of the whole training."""
    generators: tuple[np.random.Generator, ...]
    """One for each sample, the same for any split of the step into processes and micro-batches, and after resuming.

    Draw from these. Torch's own generator is seeded by the step and the first sample, so that a resumed run draws the
    same, but another split draws differently.
    """


class OwnObjective(Protocol):
    """Your own method. It may be a `torch.nn.Module` with weights that are trained and saved in checkpoints.

    The loss must be a mean over the samples, each of which counts separately, so that the mean over micro-batches and
    processes is that of the whole batch. Every weight of the network must take part in every step. The method must not
    wait for another process, nor read from the device (no `.item()`, no `if` on a tensor), which would stop a GPU.
    """

    def __call__(self, network: Segmenting, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss (a scalar) and named terms for the log (scalars, with the same names in every step)."""
