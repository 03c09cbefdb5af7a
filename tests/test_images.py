"""The recipes of the images, read: no engine that could build them is at hand where the tests run."""

import fnmatch
import json
import re

import pytest

import ccsd
from support import ROOT

Lines = list[tuple[str, str]]


def stages(text: str) -> dict[str, Lines]:
    """Return the instructions of each stage of a Dockerfile, those of the stage it begins from included."""
    found: dict[str, Lines] = {}
    name = ""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, [(word, base)]))
        elif name:
            found[name].append((word, rest.strip()))
    return found


STAGES = stages((ROOT / "Dockerfile").read_text())
TARGETS = ["predict", "full"]


def values(stage: str, word: str) -> list[str]:
    return [rest for found, rest in STAGES[stage] if found == word]


def sources(stage: str) -> list[str]:
    return [source for rest in values(stage, "COPY") for source in rest.split()[:-1]]


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of each section of an Apptainer recipe."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    parts = re.split(r"^%(\w+)\n", joined, flags=re.MULTILINE)
    lines = [[line.strip() for line in part.splitlines() if line.strip()] for part in parts]
    return dict(zip(["", *parts[1::2]], lines[::2], strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_the_command_as_a_user_without_rights(target: str) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values(target, "USER")[-1])
    assert json.loads(values(target, "ENTRYPOINT")[-1]) == ["ccsd"]
    assert values(target, "FROM") == ["python:${PYTHON}-slim-bookworm"]
    assert f'image.version="{ccsd.__version__}"' in values(target, "LABEL")[-1]
    home = re.search(r"HOME=(\S+)", " ".join(values(target, "ENV")))
    assert home
    assert {"PYTHONNOUSERSITE=1", "PYTHONSAFEPATH=1"} <= set(values(target, "ENV")[-1].split())
    assert f"mkdir -m 1777 {home[1]}" in " ".join(values(target, "RUN"))


@pytest.mark.parametrize("target", TARGETS)
def test_what_an_image_installs_is_pinned_and_nothing_else_is_fetched(target: str) -> None:
    commands = " ; ".join(values(target, "RUN"))
    installs = re.findall(r"pip install[^;&]*", commands)
    assert len(installs) == 2
    assert all(re.search(r"-c (/opt/ccsd/)?constraints\.txt ", install) for install in installs)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert not re.search(r"\b(curl|wget|git)\b", commands)
    assert not values(target, "ADD")
    installed = re.search(r"/opt/ccsd(\[.*\])?\"?$", installs[-1].strip())
    assert installed
    assert installed[1] == {"predict": None, "full": "[train,workflow,hub]"}[target]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_copied_is_there_and_not_ignored(target: str) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for source in sources(target):
        assert (ROOT / source).exists(), source
        decided = [rule for rule in ignored if fnmatch.fnmatch(source, rule.removeprefix("!"))]
        assert decided[-1] == f"!{source}"


def test_the_recipe_of_apptainer_has_the_lines_of_the_dockerfile() -> None:
    recipe = sections((ROOT / "cluster" / "ccsd.def").read_text())
    assert recipe[""][1] == "From: python:3.11-slim-bookworm"
    assert "ARG PYTHON=3.11\n" in (ROOT / "Dockerfile").read_text()
    assert [line.split()[0] for line in recipe["files"]] == sources("full")
    *runs, tried = values("full", "RUN")
    assert recipe["post"][3:] == runs
    assert recipe["test"] == [tried]
    same = [word for word in values("full", "ENV")[-1].split() if not word.startswith(("HOME=", "USER="))]
    assert recipe["environment"] == [f"export {' '.join(same)}"]
    assert recipe["runscript"] == ['exec ccsd "$@"']
    assert recipe["labels"][-1].endswith(f" {ccsd.__version__}")
