"""The interface of every network for objectives and inference: encode once, decode any subsets.

Shapes: K subsets, B batch, M modalities, R regions, D H W space.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    """One network for every combination of modalities, ours or of a plugin."""

    multiple: tuple[int, int, int]
    """What depth, height and width of an input must be multiples of."""
    is_random = True
    """Whether it may draw random numbers, as dropout does, which recomputation must repeat."""
    composes = True
    """Whether it encodes once for all subsets; otherwise each subset takes a whole pass."""

    @abstractmethod
    def encode(self, image: Tensor, available: Tensor | None = None, encoded: Sequence[int] | None = None) -> Any:
        """Encode each of the modalities once.

        Parameters
        ----------
        image
            B x M x D x H x W, z-scored; D, H, W multiples of the three `multiple`.
        available
            B x M bool; what is not available is replaced by zeros, whatever it holds, and never composed.
        encoded
            The modalities to encode; the others are not touched. None encodes all of them.
        """

    @abstractmethod
    def _decode_round(self, features: Any, subsets: Tensor) -> list[Tensor]:
        """Return logits of K x B x M subsets by level, the finest K x B x R x D x H x W."""

    def decode(self, features: Any, subsets: Tensor, decode_batch: int, *, recompute: bool = False) -> Tensor:
        """Compose and decode K x B x M bool subsets into K x B x R x D x H x W logits.

        At most `decode_batch` subsets are decoded together. With `recompute` their activations are computed again in
        the backward pass instead of kept, so that the peak is that of one round; the gradients are the same.
        """
        return self.decode_levels(features, subsets, decode_batch, recompute=recompute)[0]

    def decode_levels(
        self, features: Any, subsets: Tensor, decode_batch: int, *, recompute: bool = False
    ) -> list[Tensor]:
        """Decode as `decode` does; with deep supervision and in training, the coarser logits follow, finer first."""
        rounds = []
        for part in torch.split(subsets, decode_batch):
            if recompute and torch.is_grad_enabled():
                rounds.append(
                    checkpoint(
                        self._decode_round, features, part, use_reentrant=False, preserve_rng_state=self.is_random
                    )
                )
            else:
                rounds.append(self._decode_round(features, part))
        return [torch.cat(level) for level in zip(*rounds, strict=True)]

    def segment(
        self, image: Tensor, subsets: Tensor, decode_batch: int = 8, encoded: Sequence[int] | None = None
    ) -> Tensor:
        """Return logits of K subsets for inference, encoding only the modalities that some subset uses.

        Parameters
        ----------
        image
            B x M x D x H x W; modalities outside the subsets are not read.
        subsets
            K x M bool.
        decode_batch
            Subsets decoded together.
        encoded
            The modalities that some subset uses; None asks the device, and waits for it.

        Returns
        -------
        Tensor
            K x B x R x D x H x W logits.
        """
        if encoded is None:
            encoded = tuple(subsets.any(0).nonzero().flatten().tolist())
        features = self.encode(image, encoded=encoded)
        return self.decode(features, subsets[:, None].expand(-1, image.shape[0], -1), decode_batch)
