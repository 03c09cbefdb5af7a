"""Running Snakemake on a copy of the workflow, with the real stages or with a stand-in that only leaves their files."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from preprocess.phantom.cohort import case_names
from support import ROOT
from support.tasks import GLIOMA

LINKS = ("Snakefile", "workflow", "config", "cluster", "slurm")

# A stand-in for `ccsd`: it leaves the files of each stage and notes the call. What is tested is the workflow around it.
STAND_IN = """\
#!{python}
import os, sys, time
from pathlib import Path
stage, *rest = sys.argv[1:]
with open("calls.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
TABLES = ("metrics.tsv", "metrics.parquet", "summary.tsv", "comparisons.tsv")
def option(name):
    return Path(rest[rest.index(name) + 1])
def cases(folder, ending=""):
    for case in Path("cases.txt").read_text().split():
        (folder / (case + ending)).mkdir(parents=True, exist_ok=True)
    return []
left = {{
    "phantom": lambda: cases(Path(rest[0])),
    "convert": lambda: cases(Path(rest[1]), ".zarr"),
    "split": lambda: [Path(rest[0]) / name for name in ("cases.tsv", "dataset.json", "split.tsv")],
    "train": lambda: [option("--run") / name for name in ("model.safetensors", "run.json")],
    "evaluate": lambda: [option("--out") / name for name in ("metrics.tsv", "evaluation.json")],
    "calibrate": lambda: [Path(rest[0]) / "calibration.json"],
    "predict": lambda: [Path(rest[1]) / (case.name + ".nii.gz") for case in Path(rest[0]).iterdir()],
    "report": lambda: [option("--out"), *(Path(rest[0]) / n for n in TABLES)],
}}[stage]()
while Path("hold-" + stage).exists():
    time.sleep(0.05)
if os.environ.get("STAND_IN_FAILS") == stage:
    sys.exit("error: told to fail")
for path in left:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stage)
"""


TINY = {
    "phantom": {"cases": 6, "size": 32},
    "split": {"train": 0.5, "val": 0.25},
    "model": {"width": 2, "levels": 2},
    "distillation": {"every_n": 4},
    "train": {
        "steps": 16, "patch": [16, 16, 16], "validate_every": 16, "precision": "fp32",
    },
    "runtime": {"checkpoint_every": 2, "workers": 0},
    "evaluation": {"subsets": ["t1ce"]},
}  # fmt: skip
"""A study of seconds, with the real stages."""
HERE = ("--profile", "cluster/local", "--configfile", "study.yaml")
ONE_RANK = ("--set-threads", "train=1", "--set-resources", "train:tasks_per_node=1")
"""For studies of several trainings, which then run side by side."""
KEPT = {".lock"}
"""Hidden files that stay: removing a file that others lock is a race."""


class Running:
    """A Snakemake that runs beside the test, in a session of its own."""

    def __init__(self, project: "Project", arguments: tuple[str, ...]) -> None:
        self.log = project.folder / "snakemake.out"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments],
                cwd=project.folder,
                env=project.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """Signal Snakemake and all it started here: Ctrl-C on a terminal, or the crash of the machine."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 600) -> str:
        """Wait for a good end; return what was printed."""
        code = self.process.wait(timeout=seconds)
        text = self.log.read_text()
        assert code == 0, text
        return text


class Project:
    """A folder with the workflow in it, as in a fresh clone."""

    def __init__(self, folder: Path, *, stand_in: bool = True) -> None:
        self.folder = folder
        self.running: list[Running] = []
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        for name in LINKS:
            (folder / name).symlink_to(ROOT / name)
        self.environment = {
            **os.environ,
            "CCSD_DEVICE": "cpu",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        if stand_in:
            program = folder / "bin" / "ccsd"
            program.parent.mkdir(exist_ok=True)
            program.write_text(STAND_IN.format(python=sys.executable))
            program.chmod(0o755)
            self.environment["PATH"] = f"{program.parent}:{self.environment['PATH']}"

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        twin = copy.copy(self)
        twin.folder, twin.running = folder, []
        return twin

    def snakemake(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def start(self, *arguments: str) -> Running:
        self.running.append(Running(self, arguments))
        return self.running[-1]

    def configure(self, **settings: Any) -> str:
        if "phantom" in settings:
            (self.folder / "cases.txt").write_text("\n".join(case_names(settings["phantom"]["cases"], GLIOMA)))
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump({"name": "study", **settings}))
        return path.name

    def configure_as(self, other: "Project") -> None:
        """Take over another clone's study."""
        shutil.copy(other.folder / "study.yaml", self.folder)

    def calls(self, stage: str = "") -> list[str]:
        path = self.folder / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(stage)]

    @property
    def results(self) -> Path:
        return self.folder / "results/study"

    @property
    def training(self) -> Path:
        return self.results / "runs/ccsd-s0"

    def model_hash(self) -> str:
        return str(json.loads((self.training / "run.json").read_text())["model_hash"])

    def steps_saved(self) -> int:
        """Return the step of the last checkpoint."""
        return max((int(path.name[5:]) for path in self.training.glob("checkpoints/step-*")), default=0)

    def alive(self) -> list[psutil.Process]:
        """Return the processes that run for the clone, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def leftovers(self) -> list[Path]:
        """Return temporary files and locks that nobody will remove."""
        hidden = [path for path in self.results.rglob(".*") if path.name not in KEPT]
        return hidden + list((self.folder / ".snakemake/locks").glob("*"))

    def scores(self) -> bytes:
        return (self.results / "metrics.tsv").read_bytes()

    def forget_calls(self) -> None:
        (self.folder / "calls.txt").unlink(missing_ok=True)
