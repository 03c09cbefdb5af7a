"""Find a place for Snakemake's cache if the home folder has none, as on nodes and in containers without a home.

Snakemake creates the cache before it reads a Snakefile, so the profiles import this module; the import has the effect.
"""

import os
from contextlib import suppress
from pathlib import Path


def find_place() -> None:
    """Set XDG_CACHE_HOME, also for the jobs, to a folder in the working directory if the user's cache is read-only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/"), ".cache"))
    with suppress(OSError):
        (cache / "snakemake").mkdir(parents=True, exist_ok=True)
        if os.access(cache / "snakemake", os.W_OK):
            return
    os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())


find_place()
