"""Packages that only some commands need: the extras of pyproject.toml."""

from importlib.util import find_spec

from ccsd.errors import UsageError

EXTRAS = {
    "train": ("deepspeed", "submitit", "tensorboard"),
    "workflow": ("snakemake", "snakemake_executor_plugin_slurm"),
    "hub": ("huggingface_hub",),
}


def missing_from(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"run `pip install '.[{extra}]'` in the checkout"


def require(extra: str, purpose: str) -> None:
    """Fail if the extra of a command is not installed, before it starts anything.

    Raises
    ------
    UsageError
        If a package is missing.
    """
    if missing := missing_from(extra):
        raise UsageError(f"not installed: {', '.join(missing)}, which {purpose} needs; {install_line(extra)}")
