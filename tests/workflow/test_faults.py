"""Disk faults and deleted files in a study: one message that says what to do, and afterwards the same scores."""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.projects import HERE, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "results/study/runs/ccsd-s0/model.safetensors"
DELETE_ROUNDS = int(os.environ.get("DELETE_ROUNDS", "1"))
"""Set it higher in manual runs."""

OWN_MOUNTS = ("unshare", "--map-root-user", "--mount", "bash", "-euc")
"""A shell with its own mounts, which does not need root."""
FULL = """
kept=$1 folder=$2 sizes=$3; shift 3
mount -t tmpfs -o size=1g tmpfs "$folder"
cp -a "$kept/." "$folder"; cd "$folder"
for kib in $sizes; do
    mount -o "remount,size=${kib}k" "$folder"
    "$@" 2>&1 && exit 3
    echo "== tried with $kib"
done
mount -o remount,size=1g "$folder"
"$@" 2>&1
cp -a "$folder/results" "$kept"
"""
READ_ONLY = """
place=$1 folder=$2; shift 2
mount --bind "$place" "$place"; mount -o remount,ro,bind "$place"
cd "$folder"; "$@"
"""


@pytest.fixture
def finished(undisturbed: Project, tmp_path: Path) -> Project:
    """Return a copy of a finished study."""
    return undisturbed.copy(tmp_path / "clone")


def _forget_the_scores(clone: Project) -> None:
    """Remove the results of the evaluation, so that all its inputs are needed again."""
    shutil.rmtree(clone.results / "evaluation")
    (clone.results / "report.html").unlink()


def _fails(clone: Project, *words: str) -> None:
    done = clone.snakemake(*HERE)
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


def _ends_as(undisturbed: Project, clone: Project) -> None:
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.scores() == undisturbed.scores()
    assert clone.model_hash() == undisturbed.model_hash()
    assert clone.leftovers() == []


def test_a_flipped_bit_in_a_chunk_is_told_and_mended_as_it_says(undisturbed: Project, finished: Project) -> None:
    _forget_the_scores(finished)
    shutil.rmtree(finished.training)
    case = _case_of(finished, "train")
    store = finished.results / "data" / f"{case}.zarr"
    (chunks,) = (store / "image").glob("c*")
    content = bytearray(chunks.read_bytes())
    content[len(content) // 2] ^= 4
    chunks.write_bytes(content)
    _fails(finished, f"{case}.zarr, array image, chunk", "damaged: its checksum is wrong", "Remove the case's store")

    shutil.rmtree(store)
    _ends_as(undisturbed, finished)


def test_a_truncated_checkpoint_is_told_and_mended_as_it_says(undisturbed: Project, finished: Project) -> None:
    _forget_the_scores(finished)
    (finished.folder / MODEL).unlink()
    *_, earlier, last = sorted((finished.training / "checkpoints").glob("step-*"))
    part = max(last.glob("part-*"))
    os.truncate(part, part.stat().st_size - 100)
    _fails(finished, f"{last.name}: the checkpoint is damaged", "remove this folder")

    shutil.rmtree(last)
    done = finished.snakemake(MODEL, *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resuming from step {int(earlier.name[5:])}" in done.stdout + done.stderr
    assert finished.model_hash() == undisturbed.model_hash()


@pytest.mark.parametrize("seed", range(DELETE_ROUNDS))
def test_whatever_is_deleted_is_made_again(undisturbed: Project, finished: Project, seed: int) -> None:
    rng = random.Random(seed)
    _forget_the_scores(finished)
    deleted = [path for path in _intermediates(finished) if rng.random() < 0.3]
    for path in deleted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _ends_as(undisturbed, finished)
    again = finished.snakemake(*HERE)
    assert "Nothing to be done" in again.stdout + again.stderr, deleted


def _intermediates(clone: Project) -> list[Path]:
    """Return what a user might delete below the results: single files, stores, checkpoints, phantom cases."""
    root = clone.results
    patterns = ("*", "phantoms/*", "data/*", "marks/*", "marks/*/*", "runs/*/*", "runs/*/checkpoints/*", "logs/*")
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.name != "PHANTOMS.txt"})


@pytest.fixture
def own_mounts() -> Callable[..., Any]:
    """Return a function that runs a script with its own mounts; skip if the kernel does not allow that."""
    if sys.platform != "linux" or subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here: they give a test mounts of its own")

    def run(script: str, *arguments: object, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        command = [*OWN_MOUNTS, script, "script", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=environment)

    return run


def test_a_full_disk_stops_it_with_a_message_and_costs_nothing_that_was_done(
    undisturbed: Project, project: Callable[..., Project], own_mounts: Callable[..., Any]
) -> None:
    """The disk is full during conversion, gets some space, is full again later, and so on."""
    clone = project(stand_in=False)
    clone.configure_as(undisturbed)
    place = clone.folder.with_name("small-disk")
    place.mkdir()
    used = subprocess.run(["du", "-sk", undisturbed.folder], capture_output=True, text=True, check=True).stdout
    sizes = " ".join(str(int(share * int(used.split()[0]))) for share in (0.2, 0.65, 0.8))
    command = (sys.executable, "-m", "snakemake", *HERE)
    done = own_mounts(FULL, clone.folder, place, sizes, *command, environment=clone.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    *full, _ = re.split("== tried with .*", done.stdout)
    assert len(full) == 3
    for text in full:
        assert "No space left on device" in text
        # What did not fit may be a record of Snakemake's own, which has its own words.
        assert any(words in text for words in ("free some space", "Error recording metadata"))
    assert "Traceback" not in done.stdout
    assert clone.scores() == undisturbed.scores()
    assert clone.model_hash() == undisturbed.model_hash()
    assert clone.leftovers() == []


@pytest.mark.parametrize(("given", "word"), [("*.*", "cannot be written: Read-only file system"), ("", "protected")])
def test_a_folder_of_results_that_cannot_be_written_is_told(
    undisturbed: Project, finished: Project, own_mounts: Callable[..., Any], given: str, word: str
) -> None:
    _forget_the_scores(finished)
    for path in finished.results.glob(given or "nothing"):
        path.unlink()
    command = (sys.executable, "-m", "snakemake", *HERE)
    done = own_mounts(
        READ_ONLY, finished.folder / "results", finished.folder, *command, environment=finished.environment
    )
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    assert word in text
    assert "Traceback" not in text
    if given:
        _ends_as(undisturbed, finished)


def test_cases_may_lie_where_nothing_can_be_written(
    undisturbed: Project, project: Callable[..., Project], own_mounts: Callable[..., Any]
) -> None:
    source = undisturbed.results / "phantoms"
    clone = project(stand_in=False)
    clone.configure(source=str(source), split={"train": 0.5, "val": 0.25})
    command = (sys.executable, "-m", "snakemake", *HERE, "--until", "split")
    done = own_mounts(READ_ONLY, source, clone.folder, *command, environment=clone.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    split = "data/split.tsv"
    assert (clone.results / split).read_text() == (undisturbed.results / split).read_text()


def _case_of(clone: Project, part: str) -> str:
    rows = [line.split("\t") for line in (clone.results / "data/split.tsv").read_text().splitlines()]
    return next(case for case, name, *_ in rows if name == part)
