"""A training killed at random points of saving, again and again: `killer.py TRIALS WORLD SEED CCSD-ARGUMENTS...`.

In each trial all processes resume, save once in peace, and one of them gets SIGKILL at a random moment of its next
save. Prints one JSON object a line: how each process ended, how long the others took to notice, what can be resumed.
"""

import json
import os
import random
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401 - here and below: so that they are imported only once
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from ccsd.cli import main
from ccsd.study import CHECKPOINTS
from ccsd.training import checkpoint, loop  # noqa: F401

BEGIN, END = b"b", b"e"
PATIENCE_S = 120.0


@dataclass
class Child:
    pid: int
    saves: int
    """Where the child says that a save begins and ends."""

    def wait_for(self, word: bytes) -> float:
        ready, _, _ = select.select([self.saves], [], [], PATIENCE_S)
        assert ready, "no save began"
        assert os.read(self.saves, 1) == word, "the training ended by itself"
        return time.monotonic()

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("a process hangs")


def start(rank: int, world: int, port: int, words: list[str]) -> Child:
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return Child(child, read)
    code = 1
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        save = checkpoint.save

        def announced(*arguments: Any) -> None:
            os.write(write, BEGIN)
            save(*arguments)
            os.write(write, END)

        checkpoint.save = announced
        sys.argv = ["ccsd", *words]
        main()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - shown as Python would, then this process ends here
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def trial(rng: random.Random, world: int, words: list[str]) -> dict[str, Any]:
    port = free_port()
    sys.stdout.flush()
    children = [start(rank, world, port, words) for rank in range(world)]
    victim = rng.randrange(world)
    began = children[victim].wait_for(BEGIN)
    lasted = children[victim].wait_for(END) - began
    children[victim].wait_for(BEGIN)
    delay = rng.uniform(0, 1.1 * lasted)
    time.sleep(delay)
    os.kill(children[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    codes = [child.end() for child in children]
    for child in children:
        os.close(child.saves)
    return {"codes": codes, "victim": victim, "share": delay / lasted, "noticed_s": time.monotonic() - killed}


if __name__ == "__main__":
    trials, processes, seed = (int(word) for word in sys.argv[1:4])
    arguments = sys.argv[4:]
    run = Path(arguments[arguments.index("--run") + 1])
    chance = random.Random(seed)
    for _ in range(trials):
        outcome = trial(chance, processes, arguments)
        mark = checkpoint.latest(run)
        hidden = [path.name for path in (run / CHECKPOINTS).glob(".step-*")]
        print(json.dumps({**outcome, "latest": mark.step if mark else None, "unfinished": hidden}), flush=True)
