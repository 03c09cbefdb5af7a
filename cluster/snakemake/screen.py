"""Print less on the screen: one line when a job starts, one when it ends, and the log of a failed job, once.

Snakemake's other messages are in its own log, whose path it prints at the end. With --verbose, and in a dry run, the
screen shows everything.
"""

import logging
import re
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, LogEvent, get_event, logger

LAST_LINES = 40

_DROPPED = re.compile(
    r"Select jobs to execute|Execute \d+ jobs|Touching output file|Job \d+ has been submitted with SLURM jobid|"
    r"No SLURM account given|No account was given|Unable to guess SLURM account|MinJobAge \d+s|Using shell|"
    r"Provided (remote nodes|cores)|Rules claiming more threads|Cleaning up SLURM log files|Building DAG of jobs|"
    r"Assuming unrestricted shared filesystem|Removing output files of failed job|"
    r"Cannot restore \S+: no backup found|\s*$"
)
_FURTHER = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
_CTRL_C = "Terminating processes on user request"
_NOTHING = {LogEvent.SHELLCMD, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED}


def quieten(workflow: Any) -> None:
    """Replace Snakemake's screen handler, unless the user wants to see everything or this is a dry run."""
    # SLURM's executor never awaits the size of files that do not exist yet.
    warnings.filterwarnings("ignore", r"coroutine 'InputFiles\._predicated_size_files", RuntimeWarning)
    settings = workflow.output_settings
    if settings.dryrun or settings.verbose or settings.debug_dag or settings.quiet:
        return
    for handler in list(logger.handlers):
        if isinstance(handler, ColorizingTextHandler):
            brief = _Screen(nocolor=handler.nocolor, stream=handler.stream, formatter=handler.formatter)
            brief.filters, brief.name = handler.filters, handler.name
            logger.removeHandler(handler)
            logger.addHandler(brief)


class _Screen(ColorizingTextHandler):  # type: ignore[misc]
    """Snakemake's screen handler with our own lines for jobs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.names: dict[int, str] = {}
        self.seen_live: set[int] = set()
        self.finished: list[int] = []
        self.interrupted = False
        """By Ctrl-C, which then ends the stages: to Snakemake they look like failures."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.line(record)
            if text:
                with self._output_lock:
                    self.stream.write(f"{self.decorate(record, text)}\n")
                    self.flush()
        except BrokenPipeError:
            raise
        except Exception:  # noqa: BLE001 - as in every handler of Python
            self.handleError(record)

    def line(self, record: logging.LogRecord) -> str:
        """Return the text to show for a message; empty for none."""
        event, content = get_event(record), record.__dict__
        self.interrupted = self.interrupted or str(record.msg or "").startswith(_CTRL_C)
        if event == LogEvent.JOB_INFO:
            return self._started(content)
        if event == LogEvent.JOB_FINISHED:
            self.finished.append(content["job_id"])
            return ""
        if event == LogEvent.PROGRESS:
            return self._ended(content)
        if event == LogEvent.JOB_ERROR:
            return self._failed(content)
        is_end = self.interrupted and event == LogEvent.ERROR and content.get("exception") == "RuleException"
        if is_end or event in _NOTHING or (event is None and _DROPPED.match(str(record.msg or ""))):
            return ""
        return str(self.format(record) or "")

    def _started(self, content: dict[str, Any]) -> str:
        named = (
            str(value).strip("-") for value in content["wildcards"].values()
        )  # `-f2` for a fold, empty without folds
        values = ", ".join(filter(None, named))
        self.names[content["jobid"]] = name = f"{content['rule_name']}{f' {values}' if values else ''}"
        if not content["output"]:
            return ""  # `all` only lists the requested files
        if content["local"]:
            self.seen_live.add(content["jobid"])
        return f"{_now()} {name}: started{_where(content['log'])}"

    def _ended(self, content: dict[str, Any]) -> str:
        names = [self.names.get(job, str(job)) for job in self.finished]
        self.finished = []
        count = f"{content['done']} of {content['total']}"
        return "\n".join(f"{_now()} {name}: done, {count} steps" for name in names if name != "all")

    def _failed(self, content: dict[str, Any]) -> str:
        """Return why a job failed, and its last lines unless the screen has just shown them; or that it was ended."""
        name = self.names.get(content["jobid"], content["rule_name"])
        if self.interrupted:
            return f"{_now()} {name}: interrupted{_where(content['log'])}"
        lines = [f"{_now()} {name}: FAILED{_where(content['log'])}"]
        if content["rule_msg"]:
            lines.append(str(content["rule_msg"]).replace(_FURTHER, "").strip())
        if content["jobid"] not in self.seen_live:
            lines += _last_lines([Path(str(path)) for path in content["log"]])
        return "\n".join(lines)


def _now() -> str:
    return time.strftime("%H:%M:%S")


def _where(logs: list[str]) -> str:
    return f" (log: {', '.join(map(str, logs))})" if logs else ""


def _last_lines(logs: list[Path]) -> list[str]:
    """Return the end of the job's own log or, if there is none, of SLURM's log, which repeats it."""
    for path in logs:
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines:
                return [f"  {line}" for line in lines[-LAST_LINES:]]
    return []
