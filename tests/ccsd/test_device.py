"""Choice of the device: a requested or assigned GPU is used, or the program stops and reports why."""

import re
from pathlib import Path

import pytest
import torch

from ccsd import device as module
from ccsd.device import choose_device, cpu_note, gpu_index, gpu_note, missing_kernels, require_precision, sign_of_gpus
from ccsd.errors import UsageError

HERE, NOWHERE = Path(__file__), Path(__file__) / "nothing"
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("environment", "file", "said"),
    [
        ({"CCSD_GPUS_PER_NODE": "4"}, NOWHERE, "gpus_per_node=4 was requested"),
        ({"CCSD_GPUS_PER_NODE": "a100:4", "CUDA_VISIBLE_DEVICES": ""}, NOWHERE, "gpus_per_node=a100:4 was requested"),
        (
            {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"},
            NOWHERE,
            r"SLURM assigned GPUs to this job \(SLURM_JOB_GPUS=0\)",
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, NOWHERE, "SLURM_GPUS_ON_NODE=2"),
        ({}, HERE, "there is a GPU"),
        ({"CCSD_GPUS_PER_NODE": "0"}, HERE, "there is a GPU"),
    ],
)
def test_signs_of_gpus(environment: dict[str, str], file: Path, said: str) -> None:
    found = sign_of_gpus(environment, file)
    assert found is not None
    assert re.search(said, found)


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ({}, NOWHERE),
        ({"CUDA_VISIBLE_DEVICES": ""}, HERE),
        ({"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": "0"}, HERE),
        ({"SLURM_JOB_ID": "7"}, HERE),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "0"}, NOWHERE),
    ],
)
def test_no_sign_of_gpus(environment: dict[str, str], file: Path) -> None:
    assert sign_of_gpus(environment, file) is None


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def test_gpus_that_were_asked_for_and_cannot_be_used(without_cuda: pytest.MonkeyPatch) -> None:
    without_cuda.setenv("CCSD_GPUS_PER_NODE", "2")
    without_cuda.setattr(torch.version, "cuda", "13.0")
    without_cuda.setattr(module, "driver_version", lambda: "535.1")
    with pytest.raises(UsageError) as caught:
        choose_device()
    said = str(caught.value)
    assert "gpus_per_node=2 was requested, but torch" in said
    assert "it is a build for CUDA 13.0, and the NVIDIA driver is 535.1. CUDA 13 needs driver 580 or newer" in said
    assert "pip install" in said
    assert "give --device cpu, or set CCSD_DEVICE=cpu" in said
    assert choose_device("cpu") == torch.device("cpu")


def test_a_build_for_cpus_is_named(without_cuda: pytest.MonkeyPatch) -> None:
    without_cuda.setenv("CCSD_GPUS_PER_NODE", "2")
    without_cuda.setattr(torch.version, "cuda", None)
    with pytest.raises(UsageError, match="it is a build for CPUs"):
        choose_device()


def test_an_unknown_device_is_rejected() -> None:
    with pytest.raises(UsageError, match="--device gpu: unknown; allowed: auto, cpu"):
        choose_device("gpu")


@pytest.mark.parametrize("visible", [1, 4, 8])
def test_each_process_takes_its_gpu_or_the_only_one_that_it_sees(visible: int) -> None:
    for local_rank in range(8):
        if local_rank < visible or visible == 1:
            assert gpu_index(local_rank, visible) == (0 if visible == 1 else local_rank)
        else:
            with pytest.raises(UsageError, match=f"process {local_rank} of this machine .*: {visible} are visible"):
                gpu_index(local_rank, visible)


@pytest.fixture
def turing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a"])
    return monkeypatch


def test_emulated_bfloat16_is_rejected(turing: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"Tesla T4 only emulates bfloat16 .*use train\.precision=fp16, or fp32"):
        require_precision("bf16", CUDA)
    require_precision("fp16", CUDA)
    require_precision("fp32", CUDA)
    require_precision("bf16", torch.device("cpu"))


def test_emulated_bfloat16_on_a_cpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, emulated in (("avx2", True), ("avx512_bf16", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True, "amx_bf16": False})
        assert bool(cpu_note("bf16")) == emulated
        assert cpu_note("fp32") is None


def test_a_gpu_without_kernels_is_rejected(turing: pytest.MonkeyPatch) -> None:
    turing.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.raises(UsageError, match=r"sm_70\) is older than all GPUs that this build of torch supports \(sm_75"):
        require_precision("fp16", CUDA)


def test_what_makes_a_gpu_slow_is_noted() -> None:
    assert "set train.precision to fp16" in str(gpu_note("Tesla T4", (7, 5), 91900))
    assert "does not use cuDNN 9.10" in str(gpu_note("H100", (9, 0), 91002))
    assert gpu_note("H100", (9, 0), 91900) is None
    assert gpu_note("H100", (9, 0), 8902) is None
    assert missing_kernels("H100", (9, 0), ["sm_75", "sm_90a", "compute_90"]) is None
