"""Wrapper scripts that shadow sbatch and sacct, to work around two bugs in Snakemake's SLURM executor.

- `sbatch`: for the executor a single failed call is a failed job; ours retries (`cluster.snakemake.sbatch_retry`).
- `sacct`: it reports a cancelled job as "CANCELLED by 1000". The executor knows only "CANCELLED" and waits forever,
  as its predecessor did (Snakemake-Profiles/slurm#22).
"""

import os
import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from cluster.rendezvous import QUERIES

FOLDER = "CLUSTER_WRAPPERS"
"""Environment variable with the folder of the wrappers, which must not call themselves."""

SBATCH = """\
#!/bin/sh
exec {python} -m cluster.snakemake.sbatch_retry "$@"
"""
SACCT = """\
#!/bin/sh
found=$({program} "$@")
code=$?
[ -z "$found" ] || printf '%s\\n' "$found" | sed 's/CANCELLED by [0-9]*/CANCELLED/'
exit $code
"""


def install_wrappers(folder: Path) -> None:
    """Write the wrappers to `folder` and put it first on this process's PATH; do nothing if there is no SLURM.

    Also removes the user's variables for squeue and similar commands: with SQUEUE_PARTITION the executor would miss its
    jobs.
    """
    for name in [name for name in os.environ if name.startswith(QUERIES)]:
        del os.environ[name]
    if shutil.which("sbatch") is None or os.environ.get(FOLDER) == str(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "sbatch", SBATCH.format(python=shlex.quote(sys.executable)))
    sacct = shutil.which("sacct")
    if sacct is not None:
        _write(folder / "sacct", SACCT.format(program=shlex.quote(sacct)))
    os.environ[FOLDER] = str(folder)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def separate_logs(executor: Any, study: str) -> None:
    """Give a study its own folder for SLURM's logs of its jobs; do nothing for other executors.

    When it ends, SLURM's executor removes empty folders, including those to which a job of another study is about to
    write. Such a job then fails before it starts.
    """
    if hasattr(executor, "slurm_logdir"):
        executor.slurm_logdir /= study


def real(name: str) -> str:
    """Return the path of SLURM's own program."""
    own_folder = os.environ.get(FOLDER)
    path = ":".join(part for part in os.environ.get("PATH", "").split(":") if part != own_folder)
    return shutil.which(name, path=path) or f"/usr/bin/{name}"


def _write(path: Path, text: str) -> None:
    """Write a program atomically: another study's Snakemake may be calling it."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o755)
    temporary.replace(path)
