"""Trainings one after the other, each in a process of its own, with accidents: `driver.py PLAN`.

Starting a process and importing everything takes longer than these trainings; here it is done once, and each training
is forked from that.

PLAN is a JSON list; each entry has `arguments` for `ccsd` and a `port`, and may have accidents of the last process:
`stop_at`, `kill_at`, `freeze_at` (after that step: SIGTERM, SIGKILL, SIGSTOP), `full_at` (from that step on no file may
grow). `measure_at` prints the bytes of moments and weights after that step.
`fail_at`: after that step the last process finds damaged data, and the end of the process group waits for all, as
NCCL's does. `blind`: the last process sees the run's folder as it was before anything was in it. `nan_at`: in the steps
of that list the gradient is not finite. `late_at`: SIGTERM comes in the validation of that step.
`count_at` prints what was exchanged in that step: kind, and `host` or `device` for what it would be on GPUs.
`as_on_gpu`: the network computes in the ways that it has for GPUs.
`fake_gpu` lets settings through that want a GPU. After each training its exit code is printed.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import deepspeed  # noqa: F401 - here and below: so that they are imported only once
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
from torch import distributed

from ccsd.cli import main
from ccsd.model import blocks, compose, net
from ccsd.training import distributed as process
from ccsd.training import engine, loop
from ccsd.training.zero_shards import optimizer_bytes, parameter_bytes
from preprocess.errors import InputError

SIGNALS = {"stop_at": signal.SIGTERM, "kill_at": signal.SIGKILL, "freeze_at": signal.SIGSTOP}
META = "== exit code"
COUNTED = "exchanged:"
EXCHANGES = (
    "all_reduce",
    "reduce",
    "reduce_scatter_tensor",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "broadcast",
    "broadcast_object_list",
    "barrier",
)
MEASURED = "bytes:"
PR_SET_PDEATHSIG = 1
one_step = loop._Training._step
one_validation = loop._Training._validate
loop.train = partial(loop.train, log_every=1)


def run(entry: dict[str, Any]) -> None:
    is_last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1

    def step_then_accident(self: loop._Training, *args: Any) -> None:
        count_exchanges(self, entry)
        with poisoned(self, entry):
            one_step(self, *args)
        for name, number in SIGNALS.items():
            if is_last and entry.get(name) == self.step:
                sys.stdout.flush()
                os.kill(os.getpid(), number)
        if is_last and entry.get("fail_at") == self.step:
            raise InputError("case X: damaged")
        if entry.get("measure_at") == self.step:
            print(MEASURED, optimizer_bytes(self.engine), parameter_bytes(self.engine), flush=True)
        if is_last and entry.get("full_at") == self.step:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    loop._Training._step = step_then_accident  # type: ignore[method-assign]
    prepare(entry, is_last=is_last)
    os.environ["MASTER_PORT"] = str(entry["port"])
    sys.argv = ["ccsd", *entry["arguments"]]
    main()


def prepare(entry: dict[str, Any], *, is_last: bool) -> None:
    def stop_then_validation(self: loop._Training, *args: Any) -> bool:
        if is_last and entry.get("late_at") == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_validation(self, *args)

    loop._Training._validate = stop_then_validation  # type: ignore[method-assign]
    if is_last and entry.get("blind"):
        loop.finished = lambda *_: False
        loop.checkpoint.latest = lambda _: None
    if "fail_at" in entry:
        distributed.destroy_process_group = end_together
    if entry.get("as_on_gpu"):
        blocks.on_gpu = compose.on_gpu = net.on_gpu = lambda _: True
    if "count_at" in entry:
        process.control_group = lambda *_: distributed.new_group(backend="gloo")
    if entry.get("fake_gpu"):
        engine.require_device = lambda _settings: None
        engine.HOST["pin_memory"] = False


@contextmanager
def poisoned(training: loop._Training, entry: dict[str, Any]) -> Iterator[None]:
    """Make the gradient of the steps in `nan_at` not finite; the loss is."""
    if training.step not in entry.get("nan_at", ()):
        yield
        return
    parameter = next(training.engine.module.parameters())
    handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    yield
    handle.remove()


counting = ExitStack()
counted: Counter[str] = Counter()


def count_exchanges(training: loop._Training, entry: dict[str, Any]) -> None:
    """Count from before the step `count_at` to before the next one, then print a JSON object."""
    if training.step == entry.get("count_at"):
        for kind in EXCHANGES:
            exchange = partial(counted_exchange, training, kind, getattr(distributed, kind))
            counting.enter_context(mock.patch.object(distributed, kind, exchange))
    elif training.step == entry.get("count_at", -2) + 1:
        counting.close()
        print(COUNTED, json.dumps(counted), flush=True)


def counted_exchange(training: loop._Training, kind: str, exchange: Any, *args: Any, **kwargs: Any) -> Any:
    counted[f"{kind}, {'host' if kwargs.get('group') is training.process.control else 'device'}"] += 1
    return exchange(*args, **kwargs)


def end_together() -> None:
    """Wait for all processes, as NCCL does when its groups end."""
    store = distributed.distributed_c10d._get_default_store()
    store.set(f"ends-{os.environ['RANK']}", "yes")
    store.wait([f"ends-{rank}" for rank in range(int(os.environ["WORLD_SIZE"]))])


def forked(entry: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    code = 1
    try:
        run(entry)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - shown as Python would, then this process ends here and nowhere else
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for item in json.loads(sys.argv[1]):
        began = time.monotonic()
        print(f"{META} {forked(item)} after {time.monotonic() - began:.1f} s", flush=True)
