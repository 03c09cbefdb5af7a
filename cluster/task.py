"""What runs as each task of a SLURM job: start the command with its rank, forward signals, watch the peers, report.

submitit calls `Task` on every rank. The command is a child process: whatever happens to it (exit, crash, killed for
lack of memory), this small process survives to report it.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from cluster import rank_status, rendezvous
from cluster.waiting import wait_until

REQUEUE_CODE = 75
"""Exit code with which a command asks to be started again (EX_TEMPFAIL: it saved its state)."""

POLL_S = 0.5
GRACE_S = 20.0
"""Seconds from TERM to KILL for ranks that are ended because another failed or the launcher was interrupted."""

REQUEUE_WAIT_S = 300.0
AGREE_WAIT_S = 120.0
"""How long ranks that asked to be started again wait for the others to do the same."""

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@dataclass
class Task:
    """The work of one rank."""

    command: tuple[str, ...]
    folder: str
    cpus: int
    max_requeues: int
    gpus: str = "0"

    def __call__(self) -> None:
        """Run the command; exits with its code unless that is 0."""
        import submitit

        job = submitit.JobEnvironment()
        folder = Path(self.folder)
        attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        runner = _Runner(self, folder, job, attempt)
        code = runner.run()
        if code == REQUEUE_CODE:
            _requeue(job, folder, attempt, self.max_requeues)
        if code != 0:
            rank_status.mark_failed(folder, attempt, job.global_rank)
            sys.exit(code if code > 0 else 128 - code)


class _Runner:
    """Runs the child process of one rank and handles everything that may happen to it."""

    def __init__(self, task: Task, folder: Path, job: Any, attempt: int) -> None:
        self.task, self.folder, self.job, self.attempt = task, folder, job, attempt
        self.child: subprocess.Popen[bytes] | None = None
        self.pending: list[int] = []

    def run(self) -> int:
        """Start the command, wait for its end and return its exit code (negative: a signal ended it)."""
        for forwarded in FORWARDED:
            signal.signal(forwarded, self._forward)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        place = rendezvous.meet(self.folder, self.attempt, self.job.global_rank, str(self.job.hostnames[0]))
        self.child = subprocess.Popen(
            self.task.command,
            env=self._environment(place),
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no Python threads here
        )
        state = rank_status.RankStatus(self.job.global_rank, socket.gethostname(), self.attempt)
        state.save(self.folder)
        for number in self.pending:
            self._send(number)
        code = self._wait()
        kill_group(self.child)
        replace(state, exit_code=code, ended=time.time()).save(self.folder)
        return code

    def _environment(self, place: tuple[str, int]) -> dict[str, str]:
        job = self.job
        local_world = job.num_tasks // job.num_nodes
        own = rendezvous.environment(job.global_rank, job.num_tasks, job.local_rank, local_world, place, self.task.cpus)
        return {**os.environ, **own, rendezvous.GPUS: self.task.gpus}

    def _wait(self) -> int:
        """Wait for the child; end it if a peer has failed."""
        assert self.child is not None
        deadline: float | None = None
        while True:
            try:
                return self.child.wait(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                pass
            if deadline is None and rank_status.failed_rank(self.folder, self.attempt) is not None:
                deadline = time.monotonic() + GRACE_S
                self._send(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                kill_group(self.child)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self.child is None:
            self.pending.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        """Signal only the command itself, which is responsible for its helper processes."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(int(signal.SIGTERM) if number == signal.SIGINT else number)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; runs in a child before its program starts."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command and its helpers; the command leads their process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _requeue(job: Any, folder: Path, attempt: int, limit: int) -> None:
    """Ask for another attempt; rank 0 does so for all ranks. Returns only if there must not be another."""
    if attempt >= limit:
        print(f"not started again: max_requeues={limit} reached", flush=True)
        return
    if not _is_running(job.raw_job_id):
        return
    if job.global_rank == 0:
        if not _all_asked(job.num_tasks, folder, attempt):
            return
        rank_status.note_requeue(folder, attempt)
        job._requeue(limit - attempt)  # noqa: SLF001 - submitit's hook for exactly this
    # SLURM now ends the whole job. Leaving earlier would look like a failure to srun, which then kills rank 0 while
    # it talks to the controller.
    time.sleep(REQUEUE_WAIT_S)


def _all_asked(tasks: int, folder: Path, attempt: int) -> bool:
    """Wait until every rank has ended in this attempt; return whether all of them asked for another.

    Without waiting, a slow rank could be killed while it saves, or start late and mistake this for the next attempt.
    """

    def codes() -> list[int]:
        statuses = rank_status.read_statuses(folder, tasks)
        return [s.exit_code for s in statuses if s.attempt == attempt and s.exit_code is not None]

    wait_until(lambda: len(codes()) == tasks or rank_status.failed_rank(folder, attempt) is not None, AGREE_WAIT_S)
    return codes() == [REQUEUE_CODE] * tasks


def _is_running(job_id: str) -> bool:
    """Return whether the job is in SLURM's state RUNNING.

    While SLURM ends a job (cancelled, or requeued by SLURM itself), its state is COMPLETING. Requeueing it then would
    restart a cancelled job.
    """
    shown = subprocess.run(["scontrol", "show", "job", "-o", job_id], capture_output=True, text=True, check=False)
    return "JobState=RUNNING" in shown.stdout
