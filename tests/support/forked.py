"""Commands and programs that need no interpreter of their own: starting one takes longer than most of them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """
import json, os, sys
import deepspeed, torch._dynamo
import ccsd.evaluation.run, ccsd.report, ccsd.training.loop
from ccsd.cli import main

def run(step):
    if isinstance(step, str):
        exec(step, {"__name__": "__main__"})
        return
    sys.argv = ["ccsd", *step]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (step, end.code)

for steps in json.loads(sys.argv[1]):
    if os.fork():
        assert os.wait()[1] == 0, steps
        continue
    for step in steps:
        run(step)
    break
"""
"""Not a module: worker processes would import it."""

Step = Sequence[str]
"""Words after `ccsd`, or a program as one text."""


def run_forked(groups: Sequence[Sequence[Step]], folder: Path) -> None:
    """Run groups of steps in a folder, one after the other, each group in a fork of one process.

    A group has one training at most: a process can train once.
    """
    command = [sys.executable, "-c", PROGRAM, json.dumps(groups)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
