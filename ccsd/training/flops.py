"""The floating-point operations of a training step, counted once on tensors without data."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ccsd.config import Config, Distillation
from ccsd.config.load import plugins_of
from ccsd.config.method import WITH_DMCD
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import Draw, draw_step
from ccsd.model.net import SharedSpecificNet
from preprocess.task import Task


def step_tflop(config: Config) -> float:
    """Return the operations (in 10^12) of one global batch's forward and backward, averaged over the kinds of steps.

    A multiplication and an addition are two operations. Recomputation to save memory does not count. For plugins the
    result is 0: they are not counted because their code may need tensors with data.
    """
    if plugins_of(config):
        return 0.0
    kinds = kinds_of_steps(config.distillation, len(config.task.modalities))
    flop = sum(kind.share * sample_flop(config, kind) for kind in kinds)
    return config.train.batch_size * flop / 1e12


@dataclass(frozen=True)
class Kind:
    """What distinguishes one step from another in what it computes."""

    share: float
    """Share of the steps that are of this kind."""
    walks: bool = True
    """Whether the step walks DMCD's path, if steps take turns."""
    score: bool = False
    from_full: bool = True
    """Whether the distilled step of the path begins at the full set, if only one is distilled."""

    def draw(self, settings: Distillation, task: Task, samples: int) -> Draw:
        """Return a draw of this kind, for samples that have all sequences."""
        available = torch.ones(samples, len(task.modalities), dtype=torch.bool)
        draw = draw_step(settings, task, available, seed=0, step=int(self.walks), total_steps=9, samples=range(samples))
        return replace(draw, score=self.score, from_full=self.from_full)


def kinds_of_steps(settings: Distillation, modalities: int) -> list[Kind]:
    """Return the kinds of steps of a training."""
    steps = modalities - 1
    if settings.method not in WITH_DMCD or not steps:
        return [Kind(1.0)]
    in_turns = settings.per_step == "one"
    scored, starting = settings.is_scored / settings.every_n, 1 / steps if in_turns else 1.0
    walk = 0.5 if in_turns else 1.0
    kinds = [Kind(1 - walk, walks=False)]
    for score, from_full in product((True, False), repeat=2):
        share = (scored if score else 1 - scored) * (starting if from_full else 1 - starting)
        kinds.append(Kind(walk * share, score=score, from_full=from_full))
    return [kind for kind in kinds if kind.share]


def examples(config: Config, samples: int) -> Iterator[Draw]:
    """Yield a draw of each kind of step, for so many samples that have all sequences."""
    for kind in kinds_of_steps(config.distillation, len(config.task.modalities)):
        yield kind.draw(config.distillation, config.task, samples)


def sample_flop(config: Config, kind: Kind) -> float:
    """Return the operations of one sample's forward and backward in a step of this kind."""
    task, train = config.task, config.train
    available = torch.ones(1, len(task.modalities), dtype=torch.bool)
    draw = kind.draw(config.distillation, task, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective = Objective(SharedSpecificNet(config.model, task), config.distillation, task)
        image = torch.zeros(1, len(task.modalities), *train.patch)
        label = torch.zeros(1, *train.patch, dtype=torch.uint8)
        with counter() as counted:
            objective(image, label, available, draw)["loss"].backward()
    return float(counted.get_total_flops())


def counter() -> FlopCounterMode:
    """Return torch's counter, with both gradients of grouped convolutions counted correctly."""
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flop}
    )


def _convolution_backward_flop(grad: Any, image: Any, weight: Any, *rest: Any, **_: Any) -> int:
    """Count each requested gradient like the forward pass, from shapes; torch multiplies one by the groups."""
    transposed, wanted = rest[4], rest[7]
    positions = torch.Size(image if transposed else grad).numel()
    return int(2 * positions * torch.Size(weight[1:]).numel() * sum(wanted[:2]))
