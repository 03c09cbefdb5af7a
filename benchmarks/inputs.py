"""What the benchmarks share: BraTS-sized phantoms, converted both ways, and the peer's environment."""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from preprocess.convert import convert
from preprocess.phantom.cohort import write_cohort
from preprocess.source.layouts import CaseFiles, discover
from preprocess.store.reader import CaseStore, list_cases
from preprocess.task import default_task

HERE = Path(__file__).parent
TASK = default_task()
MODALITIES = TASK.modalities
SHAPE = (240, 240, 155)
PEER = "nnunetv2==2.8.1"
DATASET = "Dataset900_Phantoms"


def arguments(description: str) -> Namespace:
    """Parse the options that the benchmarks share."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build/benchmarks", help="folder for inputs")
    parser.add_argument("--peer-env", type=Path, default=HERE.parent / ".env-nnunet", help="nnU-Net's environment")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    return parser.parse_args()


def sources(work: Path, cases: int) -> list[CaseFiles]:
    """Return phantoms of BraTS size, written on first use."""
    folder = work / f"source-{cases}"
    if not folder.exists():
        for name in write_cohort(work / "writing", cases=cases, size=SHAPE, seed=0, task=TASK):
            print(f"phantom {name}", file=sys.stderr)
        (work / "writing").rename(folder)
    return discover(folder, TASK)


def ours(work: Path, cases: int) -> Path:
    """Return the phantoms' stores."""
    sources(work, cases)
    convert(work / f"source-{cases}", work / f"stores-{cases}", task=TASK)
    return work / f"stores-{cases}"


def whole_arrays(work: Path, stores: Path) -> Path:
    """Return the cases as RFNet and mmFormer keep them: H x W x D x 4 float32, 128^3 or more, and a label."""
    folder = work / f"npy-{len(list_cases(stores))}"
    folder.mkdir(exist_ok=True)
    for case in list_cases(stores):
        if not (folder / f"{case}_seg.npy").exists():
            opened = CaseStore(stores, case)
            padding = [(0, max(0, 128 - n)) for n in opened.shape]
            image, label = np.pad(opened.read(MODALITIES), [(0, 0), *padding]), np.pad(opened.read_label(), padding)
            np.save(folder / f"{case}_vol.npy", np.ascontiguousarray(image.transpose(3, 2, 1, 0)))
            np.save(folder / f"{case}_seg.npy", np.ascontiguousarray(label.transpose(2, 1, 0)))
    return folder


def peer_python(folder: Path) -> Path:
    """Return the interpreter of nnU-Net's environment, which is created on first use, with our version of PyTorch."""
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        print(f"installing {PEER} into {folder}", file=sys.stderr)
        torch = f"torch=={version('torch').partition('+')[0]}"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", torch], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", torch, PEER], check=True)  # naming torch keeps it
        (folder / "complete").touch()
    return python


def peer_environment(work: Path) -> dict[str, str]:
    """Return the three variables in which nnU-Net keeps its state."""
    folders = {name: work / "nnunet" / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {**{name: str(folder) for name, folder in folders.items()}, "nnUNet_compile": "0"}


def peer_dataset(work: Path, cases: list[CaseFiles], python: Path) -> list[str]:
    """Arrange the phantoms as nnU-Net expects them, let it plan, and return the cases' names."""
    raw = work / "nnunet/nnUNet_raw" / DATASET
    environment = {**os.environ, **peer_environment(work)}
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for case in cases:
        for number, modality in enumerate(MODALITIES):
            _link(case.images[modality], raw / f"imagesTr/{case.case}_{number:04d}.nii.gz")
        assert case.label is not None
        _link(case.label, raw / f"labelsTr/{case.case}.nii.gz")
    labels = {"background": 0, "one": 1, "two": 2, "three": 3, "four": 4}
    description = {
        "channel_names": dict(enumerate(MODALITIES)),
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    plans = work / "nnunet/nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
    if not plans.exists():
        command = [python.parent / "nnUNetv2_plan_and_preprocess", "-d", "900", "-npfp", "1", "--no_pp"]
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return [case.case for case in cases]


def folder_bytes(paths: list[Path]) -> int:
    """Return the bytes of some files and of everything below some folders."""
    files = [p for path in paths for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()]
    return sum(p.stat().st_size for p in files)


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        target.symlink_to(source.resolve())
