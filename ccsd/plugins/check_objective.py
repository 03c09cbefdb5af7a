"""Checks of an objective on a network: its result, a mean over samples, gradients, determinism, precision.

Shapes: B batch, M sequences, D H W space.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ccsd.config import Config
from ccsd.distillation.own import build_objective
from ccsd.distillation.schedule import draw_step
from ccsd.plugins.check_network import gradient_outcome
from ccsd.plugins.outcome import Check, Outcome

BATCH, STEPS = 4, 3
CLOSE, BF16 = 1e-3, 0.2
FOREGROUND = (0.5, 0.2, 0.05, 0.0)
"""Share of each sample: different, so that a mean over the voxels of all is noticed; one is 0, as in many patches."""
OURS = "classify."
"""Weights of our networks for a term of our methods, which other objectives need not use."""


class ObjectiveChecks:
    """The checks of the objective of a configuration, with its network."""

    def __init__(self, config: Config, without_gradient: tuple[str, ...] = ()) -> None:
        self.config, self.without_gradient = config, without_gradient
        rng, patch = torch.Generator().manual_seed(0), config.train.patch
        sequences = len(config.task.modalities)
        self.image = torch.randn(BATCH, sequences, *patch, generator=rng)
        numbers = torch.tensor([0, *config.task.classes.values()], dtype=torch.uint8)
        self.label = numbers[torch.randint(1, len(numbers), (BATCH, *patch), generator=rng)]
        shares = torch.tensor(FOREGROUND)[:, None, None, None]
        self.label[torch.rand(self.label.shape, generator=rng) >= shares] = 0
        self.available = torch.ones(BATCH, sequences, dtype=torch.bool)
        self.available[1:, 0] = sequences == 1  # one sample has everything, the others lack something
        self.available[2, 1:-1] = False

    def all(self) -> dict[str, Check]:
        """Return the checks by name, in order."""
        return {
            "result": self.result,
            "absent sequences": self.absent,
            "mean over samples": self.mean,
            "gradients": self.gradients,
            "determinism": self.determinism,
            "bf16": self.bf16,
        }

    def result(self) -> Outcome:
        """A finite loss that has a gradient, and the same terms in every step."""
        objective = self._objective("fp32")
        steps = [self._outputs(objective, step) for step in range(STEPS)]
        loss = steps[0]["loss"]
        finite = all(bool(value.isfinite()) for step in steps for name, value in step.items() if name != "removed")
        terms = [name for name in steps[0] if name not in ("loss", "removed")]
        return Outcome(
            "result", finite and loss.requires_grad, "a finite loss with a gradient, and finite terms",
            f"loss {float(loss.detach()):.4g}; terms {', '.join(terms) or 'none'}"
            f"{'' if finite else ', not all finite'}{'' if loss.requires_grad else ', without a gradient'}",
            "Return the loss with its gradient; do not divide by what can be 0, such as the voxels of a region",
        )  # fmt: skip

    def absent(self) -> Outcome:
        """What is not available does not affect the loss."""
        right = self._loss("fp32")
        hidden = self.image.masked_fill(~self.available[..., None, None, None], torch.nan)
        found = self._loss("fp32", image=hidden)
        return Outcome(
            "absent sequences", found == right, f"the loss {right:.6g} even with NaN in absent sequences",
            f"{found:.6g}", "Use step.image and step.available, and compose only what is available",
        )  # fmt: skip

    def mean(self) -> Outcome:
        """The mean over micro-batches is the loss of the batch."""
        training = not self._draws()
        whole = self._loss("fp32", training=training)
        parts = [self._loss("fp32", slice(sample, sample + 1), training=training) for sample in range(BATCH)]
        found = sum(parts) / BATCH
        return Outcome(
            "mean over samples", abs(found - whole) <= CLOSE * abs(whole), f"{whole:.6g}, the loss of {BATCH} samples",
            f"{found:.6g} as the mean of each alone",
            "Take a mean over the samples, each of which draws from its own step.generators[i]; do not mix samples",
        )  # fmt: skip

    def gradients(self) -> Outcome:
        """A gradient for every weight of the network and of the objective, over a few steps."""
        objective = self._objective("fp32")
        for step in range(STEPS):
            torch.autograd.backward(self._outputs(objective, step)["loss"])
        names = {name.removeprefix("net.").removeprefix("network."): p for name, p in objective.named_parameters()}
        needed = {name: p for name, p in names.items() if not name.startswith((OURS, *self.without_gradient))}
        return gradient_outcome(
            needed, "Use all outputs of the network, or name the weights that need no gradient with --without-gradient"
        )

    def determinism(self) -> Outcome:
        """The same step gives the same loss."""
        one, again = self._loss("fp32"), self._loss("fp32")
        return Outcome(
            "determinism", one == again, f"the loss {one:.6g} for the same step again", f"{again:.6g}",
            "Draw random numbers only from step.generators, not from random, numpy.random or the clock",
        )  # fmt: skip

    def bf16(self) -> Outcome:
        """Autocast gives nearly the same loss."""
        right, found = self._loss("fp32"), self._loss("bf16")
        return Outcome(
            "bf16", abs(found - right) <= BF16 * abs(right), f"a loss within {BF16:g} of {right:.4g}", f"{found:.4g}",
            "Convert logits to float32 before sums, logarithms and exponentials",
        )  # fmt: skip

    def _objective(self, precision: str) -> Any:
        torch.manual_seed(0)
        train = self.config.train.model_copy(update={"precision": precision})
        objective = build_objective(self.config.model_copy(update={"train": train}))
        for module in objective.modules():
            if isinstance(module, _DropoutNd):  # it draws differently for each split of the batch
                module.eval()
        return objective

    @torch.no_grad()
    def _draws(self) -> bool:
        """Return whether layers of the network draw in training, which differs for each split of the batch."""
        net, found = self._objective("fp32").net, []
        for seed in range(2):
            torch.manual_seed(seed)
            found.append(net.decode_levels(net.encode(self.image, self.available), self.available[None], 1)[0])
        return not torch.equal(*found)

    def _loss(
        self, precision: str, rows: slice = slice(None), image: Tensor | None = None, *, training: bool = True
    ) -> float:
        objective = self._objective(precision)
        if not training:
            objective.net.eval()
        found = self._outputs(objective, 0, rows, self.image if image is None else image)
        return float(found["loss"].detach())

    def _outputs(
        self, objective: Any, step: int, rows: slice = slice(None), image: Tensor | None = None
    ) -> dict[str, Tensor]:
        config, shown = self.config, self.available[rows]
        samples = list(range(BATCH))[rows]
        draw = draw_step(config.distillation, config.task, shown, seed=0, step=step, total_steps=STEPS, samples=samples)
        image = self.image if image is None else image
        found: dict[str, Tensor] = objective(image[rows], self.label[rows], shown, draw)
        return found
