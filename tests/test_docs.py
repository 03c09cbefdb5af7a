"""What the documentation says is there: files, links, settings, commands; the README's block of commands runs."""

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from ccsd.cli import app
from ccsd.config import Config
from cluster.settings import JobSettings
from support import ROOT
from support.forked import run_forked

PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern) if path.is_file()
)
WRITTEN = [path for path in PAGES if "made by `python docs/generate.py`" not in path.read_text(encoding="utf-8")]
FOLDERS = ("benchmarks", "ccsd", "cluster", "config", "docs", "preprocess", "tests", "workflow")
SECTIONS = [name for name, field in Config.model_fields.items() if hasattr(field.annotation, "model_fields")]

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def anchors(text: str) -> set[str]:
    """Return the anchors that a Markdown page has, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@page
def test_links_lead_somewhere(path: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")) if "://" not in t]
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


@page
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(rf"(?<![\w./])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", path.read_text(encoding="utf-8"))
    ours = [name for name in named if (ROOT / name.split("/")[0]).is_dir() and "NAME" not in name]
    missing = [name for name in ours if not (ROOT / name).exists() and not (path.parent / name).exists()]
    assert not missing


@page
def test_settings_that_are_named_exist(path: Path) -> None:
    text = re.sub(r"^```python$.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for section, key in re.findall(rf"\b({'|'.join(SECTIONS)})\.(\w+)\b(?!\()", text):
        if key not in {"yaml", "py", "smk", "tsv", "md", "json", "safetensors", "ipynb"}:
            assert key in Config.model_fields[section].annotation.model_fields, f"{section}.{key}"


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every `ccsd` command on a page: indented lines and code in the text."""
    joined = re.sub(r"\\\n +", "", text)
    for line in re.findall(r"^    (ccsd .*)$|`(?:[^`]*-- )?(ccsd [^`]+)`", joined, re.MULTILINE):
        words = shlex.split("".join(line), comments=True)
        yield [word for word in words[1:] if word != "..."]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_are_shown_are_understood(path: Path) -> None:
    group = typer.main.get_command(app)
    for words in commands(path.read_text(encoding="utf-8")):
        if words == ["STAGE"]:
            continue
        command = group.commands.get(words[0])
        assert command is not None or words[0].startswith("-"), words
        known = {name for parameter in (command or group).params for name in parameter.opts}
        given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert given <= known | {"-h", "--help"}, words
        jobs = [after for word, after in pairwise(words) if word == "--job"]
        assert {job.partition("=")[0] for job in jobs} <= set(JobSettings.model_fields), words


def test_the_checks_see_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "page.md"
    for text, check in [
        ("[x](nowhere.md)", test_links_lead_somewhere),
        ("[x](#nowhere)", test_links_lead_somewhere),
        ("see ccsd/nothing.py", test_files_that_are_named_exist),
        ("`train.stepz`", test_settings_that_are_named_exist),
        ("    ccsd train --rum x", test_commands_that_are_shown_are_understood),
    ]:
        wrong.write_text(text)
        with pytest.raises(AssertionError):
            check(wrong)


def test_the_example_package_is_what_its_page_shows() -> None:
    page = (ROOT / "docs/how-to/plugins.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```(?:toml|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    package = ROOT / "tests/support/example_plugin"
    names = ("pyproject.toml", *(f"example_plugin/{name}.py" for name in ("backbone", "network", "objective")))
    assert shown == [(package / name).read_text(encoding="utf-8") for name in names]


def test_the_page_of_plugins_has_every_check() -> None:
    from ccsd.plugins.check_network import NetworkChecks
    from ccsd.plugins.check_objective import ObjectiveChecks
    from ccsd.plugins.check_training import TrainingChecks
    from ccsd.plugins.conformance import config_for
    from ccsd.plugins.find import BACKBONE

    config = config_for(BACKBONE, "support.faulty:Right", (), 20)
    kinds = (NetworkChecks(config), ObjectiveChecks(config), TrainingChecks(config, Path()))
    section = (ROOT / "docs/how-to/plugins.md").read_text(encoding="utf-8").split("## Check it")[1].split("## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall("`(.*?)`", row)} == {
        name for kind in kinds for name in kind.all()
    }


SMALL = ("train.steps=2", "train.batch_size=1", "train.patch=[16,16,16]", "model.width=4", "model.levels=3",
         "runtime.workers=0")  # fmt: skip
SHORTER = {
    "phantom": ["--cases", "6", "--size", "32"],
    "convert": ["--workers", "1"],
    "evaluate": ["--workers", "1"],
    "train": [word for setting in SMALL for word in ("--set", setting)],
}
"""Added to a command: the last of two options counts."""
OTHERS = {
    "docs/how-to/training.md": {"results/demo/": "results/one/"},
    "docs/how-to/data.md": {
        "/data/BraTS": "phantoms",
        "config/splits/brats2021.tsv": "list.tsv",
        "BraTS2021_00000": "BraTS20_Training_001",
    },
    "docs/how-to/predict.md": {
        "INPUT... OUT": "phantoms/BraTS20_Training_001 out2",
        "results/NAME/": "results/one/",
    },
    "docs/reference/outputs.md": {"results/demo/": "results/one/"},
    "docs/how-to/fine-tuning.md": {
        "convert hospital": "convert phantoms",
        "config/config.yaml": "config/demo.yaml",
        "results/brats2021/": "results/one/",
        "new-cases out": "phantoms/BraTS20_Training_001 out3",
    },
    "docs/how-to/folds.md": {},
}
"""Pages whose blocks run after the README's, with what stands there for the reader's own."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_blocks_of_the_readme_and_the_docs_run_one_after_the_other(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text[text.index("## Stage by stage") :].split("\n\n")[2]
    shown = list(commands(block))
    assert [words[0] for words in shown] == [
        "phantom", "convert", "split", "train", "evaluate", "report", "predict", "evaluate", "doctor",
    ]  # fmt: skip
    shutil.copytree(ROOT / "config", tmp_path / "config")
    run_forked([[step] for step in shell(block)], tmp_path)
    assert (tmp_path / "results/one/report.html").is_file()
    assert list((tmp_path / "out").rglob("*.nii.gz"))

    (train,) = (words for words in shell(block) if words[0] == "train")
    again = [word.replace("ccsd-s0", "ccsd-s1") for word in train]
    steps: list[Any] = [[*again, "--set", "train.seed=1"]]  # for what averages several models
    (tmp_path / "list.tsv").write_text((tmp_path / "results/one/data/split.tsv").read_text())
    for name, replaced in OTHERS.items():
        page = (ROOT / name).read_text(encoding="utf-8")
        for theirs, ours in replaced.items():
            assert theirs in page, theirs
            page = page.replace(theirs, ours)
        steps += [step for found in blocks(page) for step in found]
    run_forked([[step] for step in steps], tmp_path)
    assert (tmp_path / "out2/BraTS20_Training_001.nii.gz").is_file()
    assert list((tmp_path / "back").iterdir())
    assert list((tmp_path / "out3").iterdir())
    assert (tmp_path / "folds/report.html").is_file()


def shell(block: str) -> list[list[str]]:
    """Return the commands of a block, in their shorter forms."""
    return [[*words, *SHORTER.get(words[0], [])] for words in commands(block)]


def blocks(page: str) -> Iterator[list[list[str]] | list[str]]:
    """Yield what the blocks of a page do: commands, or one program in Python."""
    for block in re.findall(r"(?:^    .*\n)+", page, re.MULTILINE):
        if block.startswith("    ccsd "):
            yield shell(block)
        elif re.match(r" +(from|import) ", block):
            yield [textwrap.dedent(block)]
