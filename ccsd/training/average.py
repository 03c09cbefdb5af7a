"""The exponential moving average of the weights, kept where the optimizer's state is: whole or in shards.

After step t the average is a + (1 - d) (w - a) with d = min(ema, (1 + t) / (10 + t)), so that the first steps, whose
weights are far off, are soon forgotten. The average is stored with the optimizer's moments and is part of every
checkpoint. It is what is validated, and what becomes the model.
"""

from typing import Any

import torch
from torch import Tensor

from ccsd.training.distributed import Process
from ccsd.training.zero_shards import EMA, average_kept, owned, state_of


def update_average(engine: Any, step: int) -> None:
    """Update the average with the weights after a step, counted from 0."""
    ema = average_kept(engine)
    shards = {id(shard.flat): shard for shard in owned(engine)}.values()
    averages = [state_of(engine, shard)[EMA] for shard in shards]
    weights = [shard.flat.detach() for shard in shards]
    torch._foreach_lerp_(averages, weights, 1 - min(ema, (1 + step) / (10 + step)))


def whole_average(engine: Any, process: Process) -> dict[str, Tensor]:
    """Return the averages by parameter name, on the CPU; empty if none are kept. Every process must call this."""
    if not average_kept(engine):
        return {}
    mine: dict[str, list[Any]] = {}
    for shard in owned(engine):
        mine.setdefault(shard.name, []).append(shard)
    is_whole = not engine.zero_optimization_stage()
    found = {}
    for name, parameter in engine.module.named_parameters():
        whole = torch.zeros(getattr(parameter, "ds_numel", parameter.numel()), device=process.device)
        for shard in mine.get(name, []):
            whole[shard.start : shard.start + shard.numel] = shard.of(state_of(engine, shard)[EMA]).to(process.device)
        if not is_whole:
            process.sum(whole)
        found[name] = whole.view(getattr(parameter, "ds_shape", parameter.shape)).cpu()
    return found
