"""An objective: supervise all available sequences and one random subset of them, which learns from them, too."""

import numpy as np
import torch
from torch.nn import functional

from ccsd.distillation.losses import distillation_loss, segmentation_loss


class OneSubset:
    def __init__(self, task, weight=0.5):
        self.weight = weight

    def __call__(self, network, step):
        features = network.encode(step.image, step.available)
        subset = self.draw(step)
        logits, *_ = network.decode_levels(features, torch.stack([step.available, subset]), decode_batch=2)
        full, part = segmentation_loss(logits, step.target).mean(1)
        taught = distillation_loss(logits[0], logits[1], temperature=4.0).mean()
        return full + part + self.weight * taught, {"full": full, "part": part, "taught": taught}

    def draw(self, step):
        """Keep each available sequence by chance, and the one with the highest number in any case."""
        sequences = step.available.shape[1]
        numbers = torch.from_numpy(np.stack([rng.random(sequences) for rng in step.generators]))
        numbers = numbers.to(step.image.device, non_blocking=True).masked_fill(~step.available, -1)
        return (numbers > 0.5) | functional.one_hot(numbers.argmax(1), sequences).bool()
