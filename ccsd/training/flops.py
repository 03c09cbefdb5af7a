"""The floating-point operations of a training step, counted once on tensors without contents."""

from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ccsd.config.load import plugins_of
from ccsd.config.schema import Config
from ccsd.distillation.objective import WITH_DMCD, Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model.net import SharedSpecificNet


def step_tflop(config: Config) -> float:
    """Return 10^12 operations of forward and backward of one global batch, the mean of steps with and without scores.

    A multiplication and an addition are two. What is computed again to save memory does not count. Plugins are not
    counted, which is 0: their code may need tensors with contents.
    """
    if plugins_of(config):
        return 0.0
    every_n = config.distillation.every_n if config.distillation.method in WITH_DMCD else 1
    flop = sample_flop(config, score=True)
    if every_n > 1:
        flop = (flop + (every_n - 1) * sample_flop(config, score=False)) / every_n
    return config.train.batch_size * flop / 1e12


def sample_flop(config: Config, *, score: bool) -> float:
    """Return the operations of one sample's forward and backward, in a step that scores criticality or not."""
    task, train = config.task, config.train
    available = torch.ones(1, len(task.modalities), dtype=torch.bool)
    draw = draw_step(config.distillation, task, available, seed=0, step=0, total_steps=1, samples=[0])
    draw = replace(draw, score=score)
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective = Objective(SharedSpecificNet(config.model, task), config.distillation, task)
        image = torch.zeros(1, len(task.modalities), *train.patch)
        label = torch.zeros(1, *train.patch, dtype=torch.uint8)
        with counter() as counted:
            objective(image, label, available, draw)["loss"].backward()
    return float(counted.get_total_flops())


def counter() -> FlopCounterMode:
    """Return torch's counter, with both gradients of grouped convolutions counted right."""
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flop}
    )


def _convolution_backward_flop(grad: Any, image: Any, weight: Any, *rest: Any, **_: Any) -> int:
    """Count each gradient that is wanted like the forward pass, of shapes; torch multiplies one by the groups."""
    transposed, wanted = rest[4], rest[7]
    positions = torch.Size(image if transposed else grad).numel()
    return int(2 * positions * torch.Size(weight[1:]).numel() * sum(wanted[:2]))
