"""Programs of our own in front of SLURM's, for what Snakemake's executor makes of their answers.

- `sbatch`: one call that fails is a failed job for the executor; ours asks again (`cluster.snakemake.sbatch_retry`).
- `sacct`: it calls a job "CANCELLED by 1000", which the executor does not know and waits on for ever.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

FRONT = "CLUSTER_FRONTS"
"""Environment variable with the folder of our programs, which must not call themselves."""

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


def install(folder: Path) -> None:
    """Write the programs to `folder` and put it first on this process' PATH; does nothing where there is no SLURM."""
    if shutil.which("sbatch") is None or os.environ.get(FRONT) == str(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "sbatch", SBATCH.format(python=shlex.quote(sys.executable)))
    sacct = shutil.which("sacct")
    if sacct is not None:
        _write(folder / "sacct", SACCT.format(program=shlex.quote(sacct)))
    os.environ[FRONT] = str(folder)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def real(name: str) -> str:
    """Return the path of SLURM's own program."""
    front = os.environ.get(FRONT)
    path = ":".join(part for part in os.environ.get("PATH", "").split(":") if part != front)
    return shutil.which(name, path=path) or f"/usr/bin/{name}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
