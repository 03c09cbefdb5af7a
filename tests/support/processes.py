"""Processes that tests start: the `ccsd` command, launchers of jobs, and waiting for what they do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil


def ccsd(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own; options are those of `subprocess.run`."""
    command = [sys.executable, "-m", "ccsd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **{"timeout": 280, **options})


def ccsd_here(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the command in this process, which has the libraries loaded."""
    from ccsd.cli import main

    words = ["ccsd", *map(str, arguments)]
    code: Any = 0
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, patch.object(sys, "argv", words):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(words, code or 0, out.getvalue(), err.getvalue())


def eventually(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Wait until a condition holds; return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


# Runs cluster.launch in a process of its own, as a user does, so that it can be interrupted and killed.
LAUNCHER = """\
import json, os, sys
from pathlib import Path
from cluster import launch
from cluster.errors import JobError, SettingsError
from cluster.launch import run
from cluster.settings import JobSettings
launch.POLL_S = 0.5, 2.0
if "LAUNCH_TEST_PATIENCE" in os.environ:
    launch.SETTLE_S = launch.SILENCE_S = float(os.environ["LAUNCH_TEST_PATIENCE"])
command, folder, options = json.loads(sys.argv[1])
try:
    sys.exit(run(command, Path(folder), JobSettings.from_options(options), "test"))
except (JobError, SettingsError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
except KeyboardInterrupt:
    sys.exit(130)
"""


class Launcher:
    """A launcher process and the ranks it started; `tag` in their environment tells them from all others."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.environment = {**os.environ, "LAUNCH_TEST_TAG": tag}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str, folder: Path, *options: str) -> "subprocess.Popen[str]":
        request = json.dumps([[sys.executable, "-c", code], str(folder), list(options)])
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, request],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.started.append(process)
        return process

    def run(self, code: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(code, folder, *options)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("LAUNCH_TEST_TAG") == self.tag and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_until_gone(self, seconds: float) -> list[psutil.Process]:
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.alive()
