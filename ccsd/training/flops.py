"""The floating-point operations of a training step, counted once on tensors without data."""

from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ccsd.config.load import plugins_of
from ccsd.config.method import WITH_DMCD
from ccsd.config.schema import Config
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model.net import SharedSpecificNet


def step_tflop(config: Config) -> float:
    """Return the operations (in 10^12) of one global batch's forward and backward, averaged over the kinds of steps.

    A multiplication and an addition are two operations. Recomputation to save memory does not count. For plugins the
    result is 0: they are not counted because their code may need tensors with data.
    """
    if plugins_of(config):
        return 0.0
    settings, steps = config.distillation, len(config.task.modalities) - 1
    walks = settings.method in WITH_DMCD and steps > 0
    in_turns = walks and settings.per_step == "one"
    scored = 1 / settings.every_n if walks else 1.0
    starting = 1 / steps if in_turns else 1.0
    flop = 0.0
    for score, from_full in product((True, False), repeat=2):
        weight = (scored if score else 1 - scored) * (starting if from_full else 1 - starting)
        if weight:
            flop += weight * sample_flop(config, score=score, from_full=from_full, step=1)
    if in_turns:
        flop = (flop + sample_flop(config, score=False, step=0)) / 2
    return config.train.batch_size * flop / 1e12


def sample_flop(config: Config, *, score: bool, from_full: bool = True, step: int = 1) -> float:
    """Return the operations of one sample's forward and backward.

    Parameters
    ----------
    config
        Configuration of the training.
    score
        Whether the step scores criticality.
    from_full
        Whether the distilled step of DMCD's path begins at the full set, if only one is distilled.
    step
        If steps take turns, odd ones walk the path and even ones do not.
    """
    task, train = config.task, config.train
    available = torch.ones(1, len(task.modalities), dtype=torch.bool)
    draw = draw_step(config.distillation, task, available, seed=0, step=step, total_steps=9, samples=[0])
    draw = replace(draw, score=score, from_full=from_full)
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
