"""What a network or an objective of one's own keeps to. docs/how-to/plugins.md has a worked example of each.

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
    """A network that encodes each sequence once and decodes any set of them: trains with every method.

    A `torch.nn.Module`. A sample's logits depend on nothing of another sample, as samples are computed together in
    other numbers in every setting; so no batch normalisation. Weights that a module owns are used in its own `forward`,
    as ZeRO stage 3 gathers them there.
    """

    multiple: tuple[int, int, int]
    """What depth, height and width of an input must be multiples of."""

    def encode(self, image: Tensor, available: Tensor) -> Any:
        """Encode B x M x D x H x W, z-scored; what is not `available` (B x M bool) is 0 and will not be composed."""

    def compose(self, features: Any, subsets: Tensor) -> Any:
        """Return what the decoder gets of K x B x M subsets; nothing of a sequence outside a subset may be in it."""

    def decode(self, composed: Any) -> Tensor | Sequence[Tensor]:
        """Return logits K x B x R x D x H x W; in training, coarser ones may follow in a list, finer first."""


class AnyNetwork(Protocol):
    """Any network: trains with the methods `full` and `dropout`, and with objectives of its author.

    A `torch.nn.Module` that keeps to what `ComposingBackbone` says of samples and of weights.
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
        """Return logits K x B x R x D x H x W of K x B x M subsets, and coarser ones where the network has them.

        Of a network that composes this costs a decode for each subset, of any other a whole pass.
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
    """Of the step, from 0."""
    total: int
    """Steps of the whole training."""
    generators: tuple[np.random.Generator, ...]
    """One for each sample, the same whatever processes and micro-batches the step is cut into, and after a resumption.

    Draw from these; torch's own chance is seeded by the step and the first sample, so that it is resumed exactly, but
    it is another in another cut.
    """


class OwnObjective(Protocol):
    """A method of one's own. It may be a `torch.nn.Module` with weights that are trained and saved in checkpoints.

    The loss is a mean over the samples, each of which counts by itself: so the mean over micro-batches and processes is
    that of the whole batch. Every weight of the network takes part in every step. Nothing waits for another process,
    and nothing asks the device (no `.item()`, no `if` on a tensor), which would stop a GPU.
    """

    def __call__(self, network: Segmenting, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss, a scalar, and named terms for the log, scalars under the same names in every step."""
