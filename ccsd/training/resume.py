"""An engine that carries on from a checkpoint, whatever number of processes and ZeRO stage made it."""

from pathlib import Path
from typing import Any

from torch import nn

from ccsd.config.schema import Train
from ccsd.training.checkpoint import FOLDER, Mark
from ccsd.training.distributed import Process
from ccsd.training.engine import build_engine
from ccsd.training.parts import Parts


def resumed_engine(module: nn.Module, settings: Train, run: Path, mark: Mark | None, process: Process) -> Any:
    """Return an engine around the module with the state of a checkpoint, or a fresh one without; collective.

    The weights go into the module before DeepSpeed cuts it up, which makes its shards and copies right under every
    stage; the optimizer's state follows afterwards, each process reading only what it owns.
    """
    if mark is None:
        return build_engine(module, settings, process.world)
    with Parts(run / FOLDER / mark.tag, mark.world) as parts:
        parts.load_weights(module)
        engine = build_engine(module, settings, process.world)
        parts.load_optimizer(engine)
    process.say(mark.words(process, settings.zero_stage))
    return engine
