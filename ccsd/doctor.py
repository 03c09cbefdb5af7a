"""What a bug report needs to know about a machine, and a diagnosis in plain words.

Facts are collected once, as plain values; the diagnosis is a pure function of them.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ccsd.errors import UsageError
from ccsd.extras import EXTRAS, install_line, missing_from, require
from cluster.snakemake.trial import HOW_JOBS_END
from cluster.snakemake.trial import ONLY as TRIAL_ONLY
from preprocess.parallel import available_cpus, cgroup_limit

PACKAGES = (
    "ccsd", "torch", "deepspeed", "numpy", "pydantic", "snakemake", "snakemake-executor-plugin-slurm",
    "submitit", "zarr",
)  # fmt: skip
ESSENTIAL = ("torch", "numpy", "pydantic", "zarr")
SLURM_COMMANDS = ("sbatch", "squeue", "scontrol", "srun")
SLURM_TIMEOUT_S = 15.0
LOW_DISK_GB = 20.0
LOW_MEMORY_GB = 4.0
GIB = 1024**3


@dataclass(frozen=True)
class Facts:
    """The machine as found; None means unknown."""

    python: str
    system: str
    versions: dict[str, str | None]
    gpus: list[str]
    driver: bool
    accelerator: str | None
    accelerator_error: str | None
    cpus: int
    memory_gb: float
    disk_gb: float
    writable: bool
    folder: str
    slurm: dict[str, str | None]
    slurm_answer: str | None
    slurm_error: str | None
    missing_extras: dict[str, list[str]] = field(default_factory=dict)
    jobs: dict[str, str | None] | None = None
    gpu_problem: str | None = None
    """Why GPUs that should be available cannot be used; a training would stop with this error."""
    gpu_notes: tuple[str, ...] = ()


@dataclass
class Diagnosis:
    """What is wrong: with `blocking` problems nothing can run; with `warnings` it is slow or limited."""

    blocking: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def inspect_machine(folder: Path, profile: str | None = None) -> Facts:
    """Inspect this machine; `folder` is where results would be written.

    With a profile, SLURM is asked about each kind of job that the profile leads to.

    Raises
    ------
    UsageError
        If the profile cannot be used.
    """
    versions = {name: _version(name) for name in PACKAGES}
    accelerator, problem = (None, None) if versions["deepspeed"] is None else _accelerator()
    slurm = {name: shutil.which(name) for name in SLURM_COMMANDS}
    answer, slurm_error = _ask_slurm() if slurm["sbatch"] else (None, None)
    return Facts(
        python=platform.python_version(),
        system=platform.platform(),
        versions=versions,
        gpus=_gpus(),
        driver=shutil.which("nvidia-smi") is not None,
        accelerator=accelerator,
        accelerator_error=problem,
        cpus=available_cpus(),
        memory_gb=round(available_memory() / GIB, 1),
        disk_gb=round(shutil.disk_usage(folder).free / GIB, 1),
        writable=os.access(folder, os.W_OK),
        folder=str(folder.absolute()),
        slurm=slurm,
        slurm_answer=answer,
        slurm_error=slurm_error,
        missing_extras={extra: missing_from(extra) for extra in EXTRAS},
        jobs=None if profile is None else try_profile(profile),
        **_gpu_state(),
    )


def try_profile(profile: str) -> dict[str, str | None]:
    """Return, for each kind of job, why SLURM would reject it with this profile; None if it would accept it.

    The workflow of the demo asks SLURM itself, and exits before it starts anything.

    Raises
    ------
    UsageError
        If the workflow fails before it can ask; the message is Snakemake's.
    """
    require("workflow", "`--profile`")
    here = Path.cwd()
    if not (here / "Snakefile").exists():
        raise UsageError(f"{here}: no Snakefile; run `ccsd doctor --profile {profile}` in the repository")
    with TemporaryDirectory() as scratch:
        answer = Path(scratch, "answer.json")
        command = [
            sys.executable, "-m", "snakemake", "--profile", profile, "--snakefile", str(here / "Snakefile"),
            "--configfile", str(here / "config/demo.yaml"), "--directory", scratch,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, TRIAL_ONLY: str(answer)}, check=False
        )
        if answer.exists():
            return dict(json.loads(answer.read_text(encoding="utf-8")))
    raise UsageError(f"the profile {profile} cannot be tested:\n{last_error(done.stderr)}")


def last_error(said: str) -> str:
    """Return Snakemake's last error without the list of jobs before it; the last lines if there is none."""
    lines = [line for line in said.strip().splitlines() if not line.startswith("  File ")]
    errors = [number for number, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    return "\n".join(lines[errors[-1] :] if errors else lines[-8:])


def diagnose(facts: Facts) -> Diagnosis:
    """Return what is wrong with a machine, and what to do about it."""
    found = Diagnosis()
    if not facts.python.startswith(("3.11.", "3.12.")):
        found.blocking.append(f"Python {facts.python} is not supported; use 3.11 or 3.12: make env PYTHON=python3.11")
    missing = [name for name in ESSENTIAL if facts.versions.get(name) is None]
    if missing:
        found.blocking.append(f"not installed: {', '.join(missing)}; run `make env` and use .venv/bin/ccsd")
    for extra, work in (("train", "training"), ("workflow", "the workflow")):
        if packages := facts.missing_extras.get(extra):
            found.warnings.append(f"{work} needs {', '.join(packages)}, not installed; {install_line(extra)}")
    if facts.accelerator_error is not None:
        found.blocking.append(
            f"DeepSpeed does not start ({facts.accelerator_error}); without a GPU, set DS_ACCELERATOR=cpu"
        )
    if not facts.writable:
        found.blocking.append(f"{facts.folder} cannot be written to; choose a folder you can write to")
    _judge_size(facts, found)
    _judge_gpus(facts, found)
    _judge_slurm(facts, found)
    rejected = {name: words for name, words in (facts.jobs or {}).items() if words}
    found.blocking += [f"jobs on SLURM, {name}: {words}; fix the profile" for name, words in rejected.items()]
    return found


def as_text(facts: Facts, found: Diagnosis) -> str:
    """Return readable text, ready to be pasted into a bug report."""
    programs = ", ".join(f"{name} {version or 'missing'}" for name, version in facts.versions.items())
    accelerator = f"accelerator {facts.accelerator or 'unknown'}" if facts.versions["deepspeed"] else "missing"
    lines = [
        f"system      {facts.system}, Python {facts.python}",
        f"packages    {programs}",
        f"GPUs        {', '.join(facts.gpus) or 'none'}",
        f"DeepSpeed   {accelerator}",
        f"machine     {facts.cpus} CPU cores, {facts.memory_gb:g} GB memory (limits of containers and jobs included)",
        f"disk        {facts.disk_gb:g} GB free in {facts.folder}",
        f"SLURM       {_slurm_line(facts)}",
        *([f"jobs        {_jobs_line(facts.jobs)}"] if facts.jobs is not None else []),
        "",
        *(f"PROBLEM  {text}" for text in found.blocking),
        *(f"note     {text}" for text in found.warnings),
    ]
    if not found.blocking:
        lacking = any(facts.missing_extras.values())
        lines.append(f"Everything required{' to convert, predict, evaluate and report' * lacking} is installed.")
    return "\n".join(lines)


def as_dict(facts: Facts, found: Diagnosis) -> dict[str, Any]:
    """Return everything as JSON-like values."""
    return {**asdict(facts), **asdict(found)}


def available_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or the limit of its control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_limit("memory.max") or cgroup_limit("memory/memory.limit_in_bytes")
    return min(total, int(limit)) if limit is not None and limit.isdigit() else total


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [
        f"{properties.name} ({properties.total_memory / GIB:.0f} GB)"
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]


def _accelerator() -> tuple[str | None, str | None]:
    """Ask DeepSpeed in a separate process: if it finds no accelerator, it may exit the whole program."""
    code = "from deepspeed.accelerator import get_accelerator as g; print(g().device_name())"
    environment = dict(os.environ)
    if not _gpus():
        environment.setdefault("DS_ACCELERATOR", "cpu")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.split()[-1], None
    return None, (done.stderr.strip().splitlines() or ["no message"])[-1]


def _ask_slurm() -> tuple[str | None, str | None]:
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%P %D %t"], capture_output=True, text=True, timeout=SLURM_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return None, "sinfo is not installed"
    except subprocess.TimeoutExpired:
        return None, f"no response within {SLURM_TIMEOUT_S:g} s"
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    return "; ".join(done.stdout.splitlines()), None


def _judge_size(facts: Facts, found: Diagnosis) -> None:
    if facts.disk_gb < LOW_DISK_GB:
        found.warnings.append(
            f"only {facts.disk_gb:g} GB of disk space are free; the 1251 cases of BraTS 2021 take about 17 GB as Zarr"
        )
    if facts.memory_gb < LOW_MEMORY_GB:
        found.warnings.append(f"only {facts.memory_gb:g} GB of memory: use a small patch and batch")


def _gpu_state() -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        return {}
    from ccsd.device import gpu_note, missing_kernels, sign_of_gpus, why_unusable

    if not torch.cuda.is_available():
        sign = sign_of_gpus(os.environ)
        return {"gpu_problem": sign and f"{sign}, but {why_unusable()}"}
    kinds = {(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(len(_gpus()))}
    old = [text for kind in kinds if (text := missing_kernels(*kind, torch.cuda.get_arch_list()))]
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    notes = tuple(text for kind in kinds if (text := gpu_note(*kind, cudnn)))
    return {"gpu_problem": "; ".join(old) or None, "gpu_notes": notes}


def _judge_gpus(facts: Facts, found: Diagnosis) -> None:
    found.warnings += facts.gpu_notes
    if facts.gpu_problem is not None:
        found.blocking.append(facts.gpu_problem)
    elif facts.driver and not facts.gpus:
        found.warnings.append(
            "there is an NVIDIA driver, but torch sees no GPU; possible causes: a CPU build of torch, a driver too old "
            "for torch's CUDA version, or an empty CUDA_VISIBLE_DEVICES"
        )
    elif not facts.gpus:
        elsewhere = "" if facts.slurm_answer is None else "; jobs on this cluster may have them"
        found.warnings.append(f"no GPU here: the demo runs in minutes, but a study on BraTS needs GPUs{elsewhere}")


def _judge_slurm(facts: Facts, found: Diagnosis) -> None:
    if facts.slurm_error is not None:
        found.warnings.append(f"SLURM is installed but does not respond: {facts.slurm_error}")
    elif facts.slurm_answer is None:
        found.warnings.append(
            "no SLURM here: everything runs on this machine; `snakemake --profile slurm` needs sbatch"
        )


def _jobs_line(jobs: dict[str, str | None]) -> str:
    of_the_demo = {HOW_JOBS_END, "phantom"}  # the demo is what asks; a study on BraTS has no phantoms
    taken = ", ".join(sorted(name for name, words in jobs.items() if words is None and name not in of_the_demo))
    return f"SLURM would accept: {taken or 'none'}" if jobs else "this profile submits none to SLURM"


def _slurm_line(facts: Facts) -> str:
    if facts.slurm_answer is not None:
        return f"available; partitions (nodes, state): {facts.slurm_answer}"
    return "does not respond" if facts.slurm_error else "not found"
