"""A place for Snakemake's cache where the home folder has none, as on nodes and in containers without one.

Snakemake makes the folder before it reads a Snakefile, so the profiles import this module; it acts by being imported.
"""

import os
from contextlib import suppress
from pathlib import Path


def find_place() -> None:
    """Point XDG_CACHE_HOME, also of the jobs, below the working directory if the user's cache cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/"), ".cache"))
    with suppress(OSError):
        (cache / "snakemake").mkdir(parents=True, exist_ok=True)
        if os.access(cache / "snakemake", os.W_OK):
            return
    os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())


find_place()
