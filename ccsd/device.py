"""Which device to compute on: a requested GPU is used, or the program stops with the reason.

choose_device("auto")     the GPU of this process; the CPU only where there is no sign of a GPU
choose_device("cpu")      always the CPU; also CCSD_DEVICE=cpu
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ccsd.errors import UsageError
from cluster.rendezvous import GPUS

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu")
MEAN_CPU = "give --device cpu, or set CCSD_DEVICE=cpu, to compute on the CPU"
WHEELS = (
    "CUDA 13 needs driver 580 or newer, CUDA 12 525 or newer: `pip install --force-reinstall torch --index-url "
    "https://download.pytorch.org/whl/cu126` for CUDA 12.6, or the same with cu130"
)
AMPERE = (8, 0)
GIB = 2**30
PEAKS = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "GH200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "4090": 165,
    "A10": 125,
    "V100": 125,
    "T4": 65,
}
"""Dense TFLOP/s in bfloat16 or float16 from NVIDIA's data sheets; the first entry found in a card's name is used."""
SLOW_BF16 = ((9, 8), (9, 15))
"""Versions of cuDNN for which torch uses its own, slower 3-D convolutions in bfloat16."""


def choose_device(wanted: str | None = None, local_rank: int = 0) -> "torch.device":
    """Return the device of this process, and make it the current one.

    Parameters
    ----------
    wanted
        auto or cpu; None means auto.
    local_rank
        Index of this process on this machine.

    Raises
    ------
    UsageError
        If GPUs were requested or assigned but this process cannot use one.
    """
    import torch

    if wanted not in (None, *DEVICES):
        raise UsageError(f"--device {wanted}: unknown; allowed: {', '.join(DEVICES)}")
    if wanted == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if sign := sign_of_gpus(os.environ):
            raise UsageError(f"{sign}, but {why_unusable()}; or {MEAN_CPU}")
        return torch.device("cpu")
    device = torch.device("cuda", gpu_index(local_rank, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # there are few shapes, and they recur
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
    return device


def sign_of_gpus(environment: Mapping[str, str], first: Path = Path("/dev/nvidia0")) -> str | None:
    """Return the evidence that there should be GPUs; None if there is none, or if they are hidden on purpose."""
    asked = environment.get(GPUS, "")
    if asked not in {"", "0"}:
        return f"gpus_per_node={asked} was requested"
    if environment.get("CUDA_VISIBLE_DEVICES", "all") in {"", "-1"}:
        return None
    for name, none in (("SLURM_JOB_GPUS", ""), ("SLURM_STEP_GPUS", ""), ("SLURM_GPUS_ON_NODE", "0")):
        given = environment.get(name, "")
        if given not in {"", none}:
            return f"SLURM assigned GPUs to this job ({name}={given})"
    # A job without GPUs may see the device files of its node, but must not open them.
    return f"there is a GPU ({first})" if "SLURM_JOB_ID" not in environment and first.exists() else None


def gpu_index(local_rank: int, visible: int) -> int:
    """Return which of the visible GPUs a process uses; if only one is visible, it was chosen for this process.

    Raises
    ------
    UsageError
        If there are fewer GPUs than processes.
    """
    if local_rank >= visible > 1:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise UsageError(
            f"process {local_rank} of this machine (LOCAL_RANK) has no GPU: {visible} are visible"
            f"{'' if shown is None else f' (CUDA_VISIBLE_DEVICES={shown})'}; start at most {visible} processes on each "
            "machine (tasks_per_node), or make more GPUs visible"
        )
    return 0 if visible == 1 else local_rank


def why_unusable() -> str:
    """Return why torch cannot use a GPU here, and what to install."""
    import torch

    build = "a build for CPUs" if torch.version.cuda is None else f"a build for CUDA {torch.version.cuda}"
    driver = driver_version() or "not found"
    return f"torch {torch.__version__} sees none: it is {build}, and the NVIDIA driver is {driver}. {WHEELS}"


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None if there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    if found := re.search(r"Kernel Module\D*([\d.]+)", text):
        return found[1]
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        words = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return words[0] if words else None


def require_precision(precision: str, device: "torch.device") -> None:
    """Reject training in bfloat16 on a GPU that only emulates it, and training on a GPU without kernels in torch.

    Raises
    ------
    UsageError
        With the precision to use, or the build to install.
    """
    import torch

    if device.type != "cuda":
        return
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if problem := missing_kernels(name, capability, torch.cuda.get_arch_list()):
        raise UsageError(problem)
    if precision == "bf16" and capability < AMPERE and torch.version.hip is None:
        raise UsageError(
            f"train.precision=bf16: {name} only emulates bfloat16 (compute capability {capability[0]}.{capability[1]}, "
            "8.0 has it), which is slow; use train.precision=fp16, or fp32"
        )


def missing_kernels(name: str, capability: tuple[int, int], built_for: Sequence[str]) -> str | None:
    """Return a message if a GPU is too old for the kernels of this build of torch; otherwise None."""
    oldest = min((int(arch[3:].rstrip("abcdef")) for arch in built_for if arch.startswith("sm_")), default=0)
    if 10 * capability[0] + capability[1] >= oldest:
        return None
    return (
        f"{name} (sm_{capability[0]}{capability[1]}) is older than all GPUs that this build of torch supports "
        f"({', '.join(built_for)}); install one for CUDA 12.6: `pip install --force-reinstall torch --index-url "
        f"https://download.pytorch.org/whl/cu126`, or {MEAN_CPU}"
    )


def peak_tflops(name: str) -> float | None:
    """Return the peak of a card in half precision in TFLOP/s; None for an unknown card."""
    return next((float(peak) for known, peak in PEAKS.items() if re.search(rf"\b{known}\b", name)), None)


@contextmanager
def explain_out_of_memory(device: "torch.device", remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of a GPU within the block into a message that says what to do.

    Raises
    ------
    UsageError
        With the peak, the memory of the card, and the remedy.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        card = torch.cuda.get_device_properties(device)
        peak, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        raise UsageError(
            f"out of memory: {card.name} has {card.total_memory / GIB:.1f} GiB; the peak was {peak / GIB:.1f} GiB in "
            f"tensors, {reserved / GIB:.1f} GiB reserved. {remedy}"
        ) from error


def cpu_note(precision: str) -> str | None:
    """Return why a training on this CPU is slower than necessary, if it is."""
    import torch

    # `avx512_bf16` and `amx_bf16` on x86, `bf16` on ARM
    if precision != "bf16" or any(v for name, v in torch.cpu.get_capabilities().items() if "bf16" in name):
        return None
    return "this CPU only emulates bfloat16: train.precision=fp32 is up to ten times as fast"


def gpu_note(name: str, capability: tuple[int, int], cudnn: int | None) -> str | None:
    """Return why a GPU is slower than expected; `cudnn` is the number that torch reports, 91002 for 9.10.2."""
    if capability < AMPERE:
        return f"{name} only emulates bfloat16: set train.precision to fp16"
    low, high = SLOW_BF16
    version = (cudnn // 10_000, cudnn // 100 % 100) if cudnn else (0, 0)
    if not low <= version < high:
        return None
    return (
        f"torch does not use cuDNN {version[0]}.{version[1]} for 3-D convolutions in bfloat16, which are several times "
        f"slower without it: install {high[0]}.{high[1]} or newer, which comes with a newer torch"
    )
