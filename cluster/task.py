"""What runs as each task of a job: start the command with its rank, pass signals on, watch the peers, say how it ended.

submitit calls `Task` on every rank. The command is a child process, so that whatever it does (exit, crash, be killed
for its memory) this small process lives to report it.
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
from cluster.birth import birth

REQUEUE_CODE = 75
"""Exit code by which a command asks to be started again (EX_TEMPFAIL: it saved its state)."""

POLL_S = 0.5
GRACE_S = 20.0
"""From TERM to KILL for ranks that end because another failed or the launcher was interrupted."""

REQUEUE_WAIT_S = 300.0
AGREE_WAIT_S = 120.0
MARK = "CLUSTER_JOB_FOLDER"
"""Environment variable by which everything that a job started can be found."""

PR_SET_PDEATHSIG = 1
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Variables by which libraries of linear algebra learn how many threads to use."""

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@dataclass
class Task:
    """The work of one rank. `devices` is the value of CUDA_VISIBLE_DEVICES; None leaves what the cluster set."""

    command: tuple[str, ...]
    folder: str
    cpus: int = 1
    devices: str | None = None
    max_requeues: int = 100
    grace_s: float = GRACE_S

    def __call__(self) -> None:
        """Run the command; exits with its code unless that is 0."""
        import submitit

        job = submitit.JobEnvironment()
        folder = Path(self.folder)
        attempt = int(os.environ.get("SLURM_RESTART_COUNT") or rank_status.count_requeues(folder))
        runner = _Runner(self, folder, job, attempt)
        code = runner.run()
        if code == REQUEUE_CODE and not rank_status.is_cancelled(folder):
            _requeue(job, folder, attempt, self.max_requeues)
        if code != 0:
            rank_status.mark_failed(folder, attempt, job.global_rank)
            sys.exit(code if code > 0 else 128 - code)


class _Runner:
    """The child process of one rank and everything that may happen to it."""

    def __init__(self, task: Task, folder: Path, job: Any, attempt: int) -> None:
        self.task, self.folder, self.job, self.attempt = task, folder, job, attempt
        self.child: subprocess.Popen[bytes] | None = None
        self.pending: list[int] = []

    def run(self) -> int:
        """Start the command, wait for its end and return its exit code (negative: a signal ended it)."""
        for forwarded in FORWARDED:
            signal.signal(forwarded, self._forward)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        host = "127.0.0.1" if self.job.cluster == "local" else str(self.job.hostnames[0])
        place = rendezvous.meet(self.folder, self.attempt, self.job.global_rank, host)
        self.child = subprocess.Popen(
            self.task.command,
            env=self._environment(place),
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads here; a killed wrapper must not leave a rank behind
        )
        here, me = socket.gethostname(), os.getpid()
        state = rank_status.RankOutcome(self.job.global_rank, here, me, birth(me), self.attempt)
        state.save(self.folder)
        for number in self.pending:
            self._send(number)
        code = self._wait()
        self._end_group()
        replace(state, exit_code=code, ended=time.time()).save(self.folder)
        return code

    def _environment(self, place: tuple[str, int]) -> dict[str, str]:
        job = self.job
        ranks = rendezvous.environment(
            job.global_rank, job.num_tasks, job.local_rank, job.num_tasks // job.num_nodes, place
        )
        # What the environment says of threads speaks of the launcher: Snakemake sets it for every job. Left alone it
        # gives each rank the threads of all, and other numbers in the last digits than elsewhere.
        threads = dict.fromkeys(THREADS, str(self.task.cpus))
        variables = {**os.environ, **ranks, **threads, "PYTHONUNBUFFERED": "1", MARK: self.task.folder}
        if self.task.devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.task.devices
        return variables

    def _wait(self) -> int:
        """Wait for the child; end it when a peer failed or the launcher gave the job up."""
        assert self.child is not None
        deadline: float | None = None
        while True:
            try:
                return self.child.wait(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                pass
            if deadline is None and self._must_end():
                deadline = time.monotonic() + self.task.grace_s
                self._send(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                self._end_group()

    def _must_end(self) -> bool:
        return rank_status.is_cancelled(self.folder) or rank_status.failed_rank(self.folder, self.attempt) is not None

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self.child is None:
            self.pending.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        """Signal the command itself; its helper processes are its own business."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(int(signal.SIGTERM) if number == signal.SIGINT else number)

    def _end_group(self) -> None:
        """Kill what is left of the command and its helpers."""
        assert self.child is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _requeue(job: Any, folder: Path, attempt: int, limit: int) -> None:
    """Ask for another attempt: rank 0 for all of them. Returns only when there must not be one."""
    if attempt >= limit:
        print(f"not started again: max_requeues={limit} reached", flush=True)
        return
    if job.cluster == "slurm" and not _is_wanted(job.raw_job_id):
        return
    if job.global_rank == 0:
        if not _all_agree(job, folder, attempt):
            return
        rank_status.note_requeue(folder, attempt)
        job._requeue(limit - attempt)  # noqa: SLF001 - submitit's hook for exactly this; on `local` it exits
    if job.cluster == "local":
        sys.exit(_local_code())
    # SLURM now ends the whole job. Leaving earlier would look like a failure to srun, which then kills rank 0 while
    # it talks to the controller.
    time.sleep(REQUEUE_WAIT_S)


def _all_agree(job: Any, folder: Path, attempt: int) -> bool:
    """Wait until every rank has ended in this attempt; tell whether all of them asked for another.

    Without waiting, a slow rank could be cut off while it saves, or start late and take itself for the next attempt.
    """
    deadline = time.monotonic() + AGREE_WAIT_S
    while time.monotonic() < deadline and rank_status.failed_rank(folder, attempt) is None:
        ended = [
            state.exit_code
            for state in rank_status.read_outcomes(folder, job.num_tasks)
            if state.attempt == attempt and state.exit_code is not None
        ]
        if len(ended) == job.num_tasks:
            return all(code == REQUEUE_CODE for code in ended)
        time.sleep(0.1)
    return False


def _local_code() -> int:
    from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

    return int(LOCAL_REQUEUE_RETURN_CODE)


def _is_wanted(job_id: str) -> bool:
    """Tell whether SLURM still runs the job.

    While it takes the job down (cancelled, or requeued by SLURM itself) it says COMPLETING. Requeueing then would
    raise a cancelled job from the dead.
    """
    shown = subprocess.run(["scontrol", "show", "job", "-o", job_id], capture_output=True, text=True, check=False)
    return "JobState=RUNNING" in shown.stdout
