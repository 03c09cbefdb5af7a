"""What a person reads when a job ended badly: which rank, how, its last lines, where the rest lies."""

import signal
from pathlib import Path

from cluster.job_record import JobRecord
from cluster.logs import last_lines, log_file
from cluster.rank_status import RankOutcome

HINTS = {
    "CANCELLED": "It was cancelled; run the same command again to carry on.",
    "DEADLINE": "The job's deadline passed before it could end.",
    "OUT_OF_MEMORY": "It used more memory than it asked for: raise mem_gb, or use a smaller patch or batch.",
    "TIMEOUT": "The time limit ended it before it could save: raise timeout_min or signal_delay_s.",
    "NODE_FAIL": "A node failed, more often than max_requeues allows.",
}


def failure(job: JobRecord, state: str | None, rank: RankOutcome | None) -> str:
    """Return the message of a `JobError` for a job that ended in `state`; `rank` is the one that failed first."""
    who = job.title
    folder = Path(job.folder)
    lines = [f"{who} failed" + (f" ({state})" if state else "") + (f": {_ending(rank)}" if rank else ".")]
    if state in HINTS:
        lines.append(HINTS[state])
    elif rank is not None and rank.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        lines.append("Killed from outside: as a rule the machine ran out of memory. Raise mem_gb, or use less of it.")
    tail = last_lines(log_file(folder, job.job_id, rank.rank if rank else 0))
    if tail:
        lines += [f"last lines of rank {rank.rank if rank else 0}:", *(f"  {line}" for line in tail)]
    return "\n".join([*lines, f"logs: {folder}"])


def _ending(rank: RankOutcome) -> str:
    code = rank.exit_code or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"rank {rank.rank} on {rank.host} {how}."
