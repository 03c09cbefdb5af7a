"""The command line of the throw-away cluster; see `cluster.sandbox`."""

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from cluster.errors import JobError
from cluster.sandbox.cluster import down, hold, release, up
from cluster.sandbox.config import Layout, environment

CPU_ONLY = {"CCSD_DEVICE": "cpu"}
"""The cluster's GPUs are pretended: a process that was given one would stop because torch does not find it."""


def main() -> None:
    """Run one command; exit with code 1 and a message on failure."""
    parser = argparse.ArgumentParser(prog="python -m cluster.sandbox", description="A throw-away SLURM cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start a cluster"), ("env", "print variables to set"), ("down", "end a cluster")):
        command = commands.add_parser(name, help=text)
        command.add_argument("base", type=Path, help="folder for everything the cluster writes; keep its name short")
        if name == "up":
            _add_layout(command)
    held = commands.add_parser("hold", help="start a cluster that ends with the process that started this command")
    _add_layout(held)
    options = parser.parse_args()
    try:
        _run(options)
    except JobError as error:
        sys.exit(f"error: {error}")


def _add_layout(parser: argparse.ArgumentParser) -> None:
    default = Layout()
    parser.add_argument("--gpu-nodes", type=int, default=default.gpu_nodes, help="nodes with pretend GPUs")
    parser.add_argument("--cpu-nodes", type=int, default=default.cpu_nodes, help="nodes without GPUs")
    parser.add_argument("--gpus", type=int, default=default.gpus, help="pretend GPUs of each node that has them")
    parser.add_argument("--accounting", action="store_true", help="with a database, so that sacct works")


def _run(options: argparse.Namespace) -> None:
    if options.command == "up":
        started = time.monotonic()
        up(options.base, _layout(options))
        print(f"SLURM is up after {time.monotonic() - started:.1f} s. To use it in this shell:")
        print(f'    eval "$({shlex.quote(sys.executable)} -m cluster.sandbox env {options.base})"')
    elif options.command == "env":
        for name, value in {**environment(options.base.absolute()), **CPU_ONLY}.items():
            print(f"export {name}='{value}'")
    elif options.command == "down":
        if not (options.base / "etc/slurm.conf").exists():
            raise JobError(f"{options.base}: no cluster was started there")
        down(options.base)
        print(f"SLURM is down; its logs are in {options.base / 'log'}")
    else:
        _hold(_layout(options))


def _layout(options: argparse.Namespace) -> Layout:
    return Layout(options.gpu_nodes, options.cpu_nodes, options.gpus, accounting=options.accounting)


def _hold(layout: Layout) -> None:
    """Keep a cluster until a signal arrives or the parent process is gone; print its folder as the first line."""
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: stopping.append(number))
    parent = os.getppid()
    base = hold(layout)
    try:
        print(base, flush=True)
        while not stopping and os.getppid() == parent:
            time.sleep(0.2)
    finally:
        release(base)


if __name__ == "__main__":
    main()
