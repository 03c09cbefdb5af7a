"""Random arguments for every command: an exit code and a message, never a traceback."""

import inspect
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer

from ccsd import cli
from preprocess.convert import convert

Rng = np.random.Generator
COMMANDS = {str(command.name or command.callback.__name__): command.callback for command in cli.app.registered_commands}
WORDS = (
    "", "0", "1", "-1", "2", "3/2", "0/0", "1/1", "1/999999999", "\u0661/\u0663", "\u00b2", "9" * 5000, "nan", "inf",
    "-inf", "1e309", "0.5", "auto", "brats2020", "flair", "flair+t1ce", "t9", "+", "affine", "a" * 300,
    "a\nb", "\udcff", "<script>", "$(id)", "-x", "--", "train.steps=1", "evaluation.overlap=2", "evaluation.flips=x",
    "=", "a=b", "nodes=2", "cluster=slurm", "x.pt2", "x.nii", "32", "33", "1x2x3", "99999x99999x99999",
)  # fmt: skip
PLACES = (
    "src",
    "data",
    "empty",
    "file",
    "config.yaml",
    "nowhere",
    "file/below",
    "loop",
    "split.tsv",
    "new/out",
    "study",
    "model",
)
FAST = {
    "--cases": ("1", "2", "0", "-3"),
    "--size": ("32", "31", "x", "1x2x3", "\u00b2", "99999"),
    "--workers": ("1", "0", "-1", "x"),
}
"""What would be slow rather than wrong when it is large."""


@pytest.fixture(scope="module")
def place(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bit of everything that arguments can name."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(cohort, root / "src")
    convert(root / "src", root / "data")
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
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, described = get_args(parameter.annotation)[:2]
        named = isinstance(described, typer.models.OptionInfo)
        required = parameter.default is parameter.empty
        if rng.random() > (0.95 if required else 0.4):
            continue
        name = max(described.param_decls or [f"--{parameter.name.replace('_', '-')}"], key=len)
        if kind is bool:
            yield name
            continue
        is_path = Path in (kind, *get_args(kind))
        value = str(rng.choice(FAST.get(name, PLACES if is_path and rng.random() < 0.8 else WORDS)))
        yield from ([name, value] if named else [value])


@pytest.mark.timeout(600)
def test_random_arguments(
    place: Path, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ccsd.cli.train._submit", lambda *_: None)
    codes = {0: 0, 1: 0, 2: 0}
    for seed in range(5 * tries):
        rng = np.random.default_rng(seed)
        name = str(rng.choice([name for name in COMMANDS if name != "doctor"]))
        folder = tmp_path / f"{seed}"
        shutil.copytree(place, folder, symlinks=True)
        monkeypatch.chdir(folder)
        argv = [name, *arguments(COMMANDS[name], rng)]
        codes[call(argv, monkeypatch)] += 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, argv
        assert [path.name for path in tmp_path.iterdir()] == [str(seed)], argv  # nothing was written outside
        assert (folder / "file").read_text() == "text", argv
        assert len(list((folder / "src").rglob("*.nii.gz"))) >= 10, argv
        shutil.rmtree(folder)
    assert codes[2] > codes[0]


def call(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ccsd", *argv])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:
        raise AssertionError(argv) from error
    return 0


def test_a_file_never_takes_the_place_of_a_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder given by mistake where a file is written keeps what it holds."""
    kept = tmp_path / "kept"
    (kept / "cases.tsv").mkdir(parents=True)
    (kept / "cases.tsv" / "precious").touch()
    shutil.copytree(place / "data", kept, dirs_exist_ok=True)
    assert call(["split", str(kept)], monkeypatch) == 2
    assert (kept / "cases.tsv" / "precious").exists()


def test_folders_that_hold_themselves_are_read_once(cohort: Path, tmp_path: Path) -> None:
    from preprocess.source.layouts import discover

    shutil.copytree(cohort, tmp_path / "src")
    for name in "abcd":
        (tmp_path / "src" / name).symlink_to(tmp_path / "src")
    assert [case.case for case in discover(tmp_path / "src")] == [case.case for case in discover(cohort)]
