"""Random arguments for every command: an exit code and a message, never a traceback."""

import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer

from ccsd import cli
from preprocess.phantom.cohort import MARK, case_names
from support.fuzzing import Rng
from support.processes import ccsd_here
from support.tasks import GLIOMA

COMMANDS = {str(command.name or command.callback.__name__): command.callback for command in cli.app.registered_commands}
WORDS = (
    "", "0", "1", "-1", "2", "3/2", "0/0", "1/1", "1/999999999", "\u0661/\u0663", "\u00b2", "9" * 5000, "nan", "inf",
    "-inf", "1e309", "0.5", "auto", "brats2020", "flair", "flair+t1ce", "t9", "+", "affine", "a" * 300,
    "a\nb", "\udcff", "<script>", "$(id)", "-x", "--", "train.steps=1", "evaluation.overlap=2", "evaluation.flips=x",
    "=", "a=b", "nodes=2", "cluster=slurm", "x.pt2", "x.nii", "32", "33", "1x2x3", "99999x99999x99999",
)  # fmt: skip
PLACES = (
    "src", "data", "empty", "file", "config.yaml", "nowhere", "file/below", "loop", "split.tsv", "new/out", "study",
    "model",
)  # fmt: skip
FAST = {
    "--cases": ("1", "2", "0", "-3"),
    "--size": ("32", "31", "x", "1x2x3", "\u00b2", "99999"),
    "--workers": ("1", "0", "-1", "x"),
}
"""What would be slow rather than wrong when it is large."""


@pytest.fixture(scope="module")
def place(cohort: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bit of everything that arguments can name."""
    root = tmp_path_factory.mktemp("place")
    for case in case_names(2, GLIOMA):
        shutil.copytree(cohort / case, root / "src" / case)
        shutil.copytree(data / f"{case}.zarr", root / "data" / f"{case}.zarr")
    shutil.copy(cohort / MARK, root / "src")
    (root / "split.tsv").write_text("case\tsplit\nnobody\ttrain\n")
    (root / "empty").mkdir()
    (root / "file").write_text("text")
    (root / "config.yaml").write_text("name: x\nphantom: {}\n")
    (root / "loop").mkdir()
    for name in "abc":
        (root / "loop" / name).symlink_to(root / "loop")
    for folder in ("study", "model"):
        (root / folder).mkdir()
    (root / "model" / "run.json").write_text('{"config": []}')
    (root / "model" / "model.safetensors").write_bytes(b"\x80\x04N.")
    (root / "study" / "config.yaml").write_text("[")
    return root


def arguments(command: Callable[..., None], rng: Rng) -> Iterator[str]:
    """Yield a random value for some of the options and most of the arguments."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    for parameter in (p for p in parameters if p.annotation is not typer.Context):
        kind, described = get_args(parameter.annotation)[:2]
        if rng.random() > (0.95 if parameter.default is parameter.empty else 0.4):
            continue
        name = max(described.param_decls or [f"--{parameter.name.replace('_', '-')}"], key=len)
        if isinstance(described, typer.models.OptionInfo):
            yield name
        if kind is not bool:
            is_path = Path in (kind, *get_args(kind)) and rng.random() < 0.8
            yield str(rng.choice(FAST.get(name, PLACES if is_path else WORDS)))


@pytest.mark.timeout(600)
def test_random_arguments(place: Path, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccsd.cli.train._run_as_job", lambda *_: None)
    codes = {0: 0, 1: 0, 2: 0}
    for seed in range(5 * tries):
        rng = np.random.default_rng(seed)
        name = str(rng.choice(sorted(COMMANDS.keys() - {"doctor"})))
        folder = shutil.copytree(place, tmp_path / f"{seed}", symlinks=True)
        monkeypatch.chdir(folder)
        argv = [name, *arguments(COMMANDS[name], rng)]
        done = ccsd_here(*argv)
        codes[done.returncode] += 1
        assert "Traceback" not in done.stdout + done.stderr, argv
        assert [path.name for path in tmp_path.iterdir()] == [str(seed)], argv  # nothing was written outside
        assert (folder / "file").read_text() == "text", argv
        assert len(list((folder / "src").rglob("*.nii.gz"))) >= 10, argv
        shutil.rmtree(folder)
    assert codes[2] > codes[0]
