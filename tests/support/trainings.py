"""Launch trainings on several processes and collect how they ended."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVER, KILLER = (Path(__file__).with_name(name) for name in ("driver.py", "killer.py"))


@dataclass(frozen=True)
class Ending:
    """How one training ended: on the first process, if nothing else is said."""

    code: int
    text: str
    seconds: float


@dataclass(frozen=True)
class Training:
    """One training of a launch; accidents are those of `driver.py`."""

    run: Path
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    accidents: tuple[tuple[str, Any], ...] = ()


def training(run: Path, *settings: str, options: tuple[str, ...] = (), **accidents: Any) -> Training:
    return Training(run, settings, options, tuple(accidents.items()))


Launch = Callable[..., list[list[Ending]]]


def launch_trainings(
    inputs: Path, *trainings: Training, world: int = 1, patience: int = 120, timeout: float = 280
) -> list[list[Ending]]:
    """Run trainings one after the other in one launch of `world` processes; returns endings, by process."""
    ports = _free_ports(len(trainings))
    plan = [
        {"arguments": [*_arguments(inputs, item), *item.options], "port": port, **dict(item.accidents)}
        for item, port in zip(trainings, ports, strict=True)
    ]
    return [_endings(text) for text in _outputs(json.dumps(plan), world, patience, timeout)]


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _arguments(inputs: Path, item: Training) -> list[str]:
    words = ["train", "--config", str(inputs / "tiny.yaml"), "--data", str(inputs / "data"), "--run", str(item.run)]
    return [*words, *(word for setting in item.settings for word in ("--set", setting))]


def _outputs(plan: str, world: int, patience: int, timeout: float) -> list[str]:
    processes = [
        subprocess.Popen(
            [sys.executable, str(DRIVER), plan],
            env=os.environ
            | {
                "GLOO_SOCKET_IFNAME": "lo",
                "CCSD_PEER_TIMEOUT_S": str(patience),
                "CCSD_DEVICE": "cpu",
                "DS_ACCELERATOR": "cpu",
            }
            | ({} if world == 1 else _place(rank, world)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    # The last process may be frozen on purpose: only the others have to end by themselves.
    free = max(1, world - 1)
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes[:free]]
    finally:
        for process in processes[free:]:
            _end(process)
        for process in processes:
            process.kill()
    return outputs + [process.communicate()[0] for process in processes[free:]]


def _place(rank: int, world: int) -> dict[str, str]:
    """Return what a launcher sets; a process alone gets nothing."""
    return {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}


def _end(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()


def _endings(text: str) -> list[Ending]:
    parts = re.split(r"^== exit code (-?\d+) after ([\d.]+) s$", text, flags=re.MULTILINE)
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=False)
    return [Ending(int(number), said, float(seconds)) for said, number, seconds in triples]
