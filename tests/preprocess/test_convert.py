"""Conversion of new or changed cases: a bad case does not affect others, and a killed run leaves no partial store."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess import convert as module
from preprocess import parallel
from preprocess.case import prepare
from preprocess.convert import convert
from preprocess.dataset import content_hash, data_hash, read_metas, read_rejections, write_rejection, write_tables
from preprocess.errors import InputError
from preprocess.files import complete_or_absent, sweep
from preprocess.parallel import select_part
from preprocess.restore import write_restored
from preprocess.source import nifti
from preprocess.source.layouts import CaseFiles, discover
from preprocess.store import write
from preprocess.store.reader import CaseStore, list_cases
from support.hostile import HOSTILE
from support.tasks import GLIOMA, SEQUENCES

NAMES = [f"BraTS20_Training_{n:03d}" for n in (1, 2, 3)]


def statuses(src: Path, dest: Path, **options: object) -> dict[str, str]:
    return {o.case: o.status for o in convert(src, dest, **options, task=GLIOMA)}


@pytest.fixture
def three(write_case: Callable[..., Path]) -> Path:
    for number, name in enumerate(NAMES):
        src = write_case(name, seed=number)
    return src


def test_does_only_what_is_missing_or_changed(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    assert statuses(three, dest) == dict.fromkeys(NAMES, "converted")
    before = (dest / f"{NAMES[0]}.zarr").stat().st_ino
    path = three / NAMES[1] / f"{NAMES[1]}_t2.nii.gz"
    volume = nifti.read(path)
    nifti.write(path, volume.array // 2, volume.affine)
    assert statuses(three, dest) == {NAMES[0]: "unchanged", NAMES[1]: "converted", NAMES[2]: "unchanged"}
    assert (dest / f"{NAMES[0]}.zarr").stat().st_ino == before
    path.unlink()
    assert statuses(three, dest)[NAMES[1]] == "converted"
    assert CaseStore(dest, NAMES[1]).modalities == SEQUENCES[:3]


def test_a_damaged_case_is_rejected_and_the_others_are_not(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(three, dest, task=GLIOMA)
    path = three / NAMES[1] / f"{NAMES[1]}_t1.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    (rejected,) = [item for item in convert(three, dest, task=GLIOMA) if item.status == "rejected"]
    assert rejected.case == NAMES[1]
    assert "truncated" in rejected.message
    assert str(path) in rejected.message
    assert list_cases(dest) == [NAMES[0], NAMES[2]], "no store of the older source stays"
    assert "truncated" in read_rejections(dest)[NAMES[1]]
    path.write_bytes(whole)
    assert statuses(three, dest)[NAMES[1]] == "converted"
    assert read_rejections(dest) == {}


def test_a_rejected_case_that_is_taken_away_is_forgotten(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    for name in NAMES[:2]:
        (three / name / f"{name}_t1.nii.gz").write_bytes(b"")
    convert(three, dest, task=GLIOMA)
    assert sorted(read_rejections(dest)) == NAMES[:2]
    shutil.rmtree(three / NAMES[1])
    convert(three, dest, part=(2, 2), task=GLIOMA)
    assert sorted(read_rejections(dest)) == NAMES[:1]


def test_the_hash_of_contents_changes_with_these_cases_only(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(three, dest, task=GLIOMA)
    before = {name: content_hash(dest, [name]) for name in NAMES}
    assert len({*before.values(), content_hash(dest, NAMES), content_hash(dest, NAMES[:2])}) == 5
    (three / NAMES[1] / f"{NAMES[1]}_seg.nii.gz").write_bytes(
        (three / NAMES[0] / f"{NAMES[0]}_seg.nii.gz").read_bytes()
    )
    convert(three, dest, task=GLIOMA)
    assert [name for name in NAMES if content_hash(dest, [name]) != before[name]] == [NAMES[1]]


def test_a_case_is_never_both_converted_and_rejected(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(three, dest, task=GLIOMA)
    store, away = dest / f"{NAMES[0]}.zarr", tmp_path / "away"
    store.rename(away)
    write_rejection(dest, NAMES[0], "as before a conversion that was killed between store and note", [three / NAMES[0]])
    away.rename(store)
    assert [case.status for case in convert(three, dest, task=GLIOMA)] == ["unchanged"] * 3
    assert read_rejections(dest) == {}


def test_workers_and_parts_give_the_same_stores(three: Path, tmp_path: Path) -> None:
    alone, pool, parts = (tmp_path / name for name in ("alone", "pool", "parts"))
    convert(three, alone, task=GLIOMA)
    convert(three, pool, workers=2, task=GLIOMA)
    for number in (1, 2):
        convert(three, parts, part=(number, 2), task=GLIOMA)
    assert data_hash(read_metas(alone).values()) == data_hash(read_metas(parts).values())
    for name in NAMES:
        files = sorted(p.relative_to(alone) for p in (alone / f"{name}.zarr").rglob("*") if p.is_file())
        for file in files:
            assert (alone / file).read_bytes() == (pool / file).read_bytes() == (parts / file).read_bytes()


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_parts_cover_every_case_once(total: int) -> None:
    cases = [CaseFiles(str(n), task=GLIOMA) for n in range(5)]
    parts = [select_part(cases, (number, total)) for number in range(1, total + 1)]
    assert [case for part in parts for case in part] == cases
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", [(0, 2), (3, 2)])
def test_impossible_part(part: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="I from 1 to N"):
        select_part([], part)


def test_case_without_label_converts(write_case: Callable[..., Path], tmp_path: Path) -> None:
    assert list(statuses(write_case(label=None), tmp_path / "dest").values()) == ["converted"]
    assert not CaseStore(tmp_path / "dest", NAMES[0]).has_label


def test_normalisation_of_a_modality_does_not_know_the_others(write_case: Callable[..., Path]) -> None:
    (files,) = discover(write_case(), task=GLIOMA)
    (alone, together) = prepare(files, ["t1"]), prepare(files)
    assert alone.meta.scales["t1"] == together.meta.scales["t1"]
    assert not alone.z[[0, 2, 3]].any()
    assert np.array_equal(np.sort(alone.z[1][alone.z[1] != 0]), np.sort(together.z[1][together.z[1] != 0]))


def test_prepare_opens_only_what_is_named(write_case: Callable[..., Path]) -> None:
    (files,) = discover(write_case(), task=GLIOMA)
    files.images["t2"].write_bytes(b"not read")
    assert prepare(files, ["flair", "t1ce"]).meta.modalities == ("flair", "t1ce")
    with pytest.raises(InputError, match=files.case):
        prepare(files)


def test_the_label_outside_the_images_is_kept(write_case: Callable[..., Path]) -> None:
    label = np.zeros((12, 10, 8), np.uint8)
    label[0, 0, 0] = 2
    (files,) = discover(write_case(label=label), task=GLIOMA)
    prepared = prepare(files)
    assert prepared.label is not None
    assert prepared.label.sum() == 2


def test_negative_voxels_are_brain(write_case: Callable[..., Path]) -> None:
    (files,) = discover(write_case(), task=GLIOMA)
    source = nifti.read(files.images["t1"]).array
    assert (source < 0).any()
    assert (prepare(files).z[1] != 0).sum() == (source != 0).sum()


REJECTIONS = {
    "shape": (lambda v: (v.array[:-1], v.affine), "shape", False),
    "affine": (lambda v: (v.array, v.affine + np.diag([0.1, 0, 0, 0])), "mm away", True),
    "empty": (lambda v: (v.array * 0, v.affine), "0 everywhere", False),
    "one value": (lambda v: ((v.array != 0).astype(np.int16), v.affine), "one value", False),
    "not-finite": (
        lambda v: (np.where(v.array > 900, np.nan, v.array).astype(np.float32), v.affine),
        "not finite",
        True,
    ),
}


@pytest.mark.parametrize("kind", REJECTIONS)
def test_what_cannot_be_right_is_rejected(write_case: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    change, message, allowable = REJECTIONS[kind]
    src = write_case()
    path = src / NAMES[0] / f"{NAMES[0]}_t1ce.nii.gz"
    nifti.write(path, *change(nifti.read(path)))
    (outcome,) = convert(src, tmp_path / "dest", task=GLIOMA)
    assert outcome.status == "rejected"
    assert message in outcome.message
    if allowable:
        (outcome,) = convert(src, tmp_path / "dest", allow=[kind], task=GLIOMA)
        assert (outcome.status, message in outcome.message) == ("converted", True)
        assert statuses(src, tmp_path / "dest") == {NAMES[0]: "rejected"}, "an older permission does not last"
    else:
        with pytest.raises(InputError, match="cannot be disabled"):
            convert(src, tmp_path / "dest", allow=[kind.replace("one value", "empty")], task=GLIOMA)


def test_wrong_label_values_are_rejected_with_counts(write_case: Callable[..., Path], tmp_path: Path) -> None:
    label = np.zeros((12, 10, 8), np.uint8)
    label[5, 5, 3:5] = 3
    (outcome,) = convert(write_case(label=label), tmp_path / "dest", task=GLIOMA)
    assert "3 (2 voxels)" in outcome.message
    assert "4 ET" in outcome.message


def test_resection_cavity(write_case: Callable[..., Path], tmp_path: Path) -> None:
    src = write_case("BraTS-GLI-02405-100")
    (outcome,) = convert(src, tmp_path / "dest", labels="brats2024", task=GLIOMA)
    assert "label 4 (RC, resection cavity; " in outcome.message
    assert "is not a class of the task brats-gli-pre; if allowed, it counts as background [no-class]" in outcome.message
    (outcome,) = convert(src, tmp_path / "dest", labels="brats2024", allow=["no-class"], task=GLIOMA)
    assert outcome.status == "converted"
    assert set(np.unique(CaseStore(tmp_path / "dest", outcome.case).read_label())) <= {0, 1, 2}


def test_task01_in_one_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 100, (6, 5, 4, 4)).astype(np.int16)
    label = rng.integers(0, 4, (6, 5, 4)).astype(np.uint8)
    for folder, array in (("imagesTr", image), ("labelsTr", label)):
        (tmp_path / "src" / folder).mkdir(parents=True)
        nifti.write(tmp_path / "src" / folder / "BRATS_001.nii.gz", array, np.eye(4))
    convert(tmp_path / "src", tmp_path / "dest", task=GLIOMA)
    opened = CaseStore(tmp_path / "dest", "BRATS_001")
    assert [opened.meta.scales[m].mean for m in SEQUENCES] == pytest.approx(image.mean(axis=(0, 1, 2)))
    assert np.array_equal(opened.read_label(), np.array([0, 2, 1, 3])[label].T)


def test_no_case_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case found"):
        convert(tmp_path, tmp_path / "dest", task=GLIOMA)
    with pytest.raises(InputError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "dest", task=GLIOMA)
    assert not (tmp_path / "dest").exists()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_that_dies_costs_one_case(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_convert_case", _die_on_the_second)
    monkeypatch.setattr(parallel, "_START_METHOD", "fork")
    found = convert(three, tmp_path / "dest", workers=2, task=GLIOMA)
    assert {o.case: o.status for o in found} == {NAMES[0]: "converted", NAMES[1]: "rejected", NAMES[2]: "converted"}
    assert [o.case for o in found if o.died] == [NAMES[1]]


_plain = module._convert_case


def _die_on_the_second(job: tuple[CaseFiles, Path, tuple[str, ...]]) -> module.CaseConversion:
    if job[0].case == NAMES[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return _plain(job)


def test_a_killed_conversion_leaves_nothing_that_looks_done(cohort: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    for wait in (0.5, 1.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "ccsd", "convert", str(cohort), str(dest)], stderr=subprocess.DEVNULL
        )
        time.sleep(wait)
        process.kill()
        process.wait()
        for case in list_cases(dest) if dest.exists() else ():
            opened = CaseStore(dest, case)
            assert opened.read(SEQUENCES).any()
            assert opened.read_label().any()
    assert {o.status for o in convert(cohort, dest, task=GLIOMA)} <= {"converted", "unchanged"}
    assert len(list_cases(dest)) == 6


def test_a_full_disk_is_told_and_leaves_nothing(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_write_array", full)
    with pytest.raises(InputError, match="No space left on device"):
        convert(three, tmp_path / "dest", task=GLIOMA)
    assert list((tmp_path / "dest").iterdir()) == []


def test_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    with complete_or_absent(tmp_path / "x.nii.gz") as temporary:
        assert temporary.suffixes == [".nii", ".gz"]
        temporary.write_text("half")
        left_over = tmp_path / ".tmp-1-x.zarr"
        left_over.mkdir()
        sweep(tmp_path)
        assert left_over.exists()
        os.utime(left_over, (0, 0))
        sweep(tmp_path)
        assert not left_over.exists()
        assert temporary.exists()


def test_tables(three: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    (three / NAMES[2] / f"{NAMES[2]}_seg.nii.gz").unlink()
    (three / NAMES[0] / f"{NAMES[0]}_t1.nii.gz").write_bytes(b"")
    convert(three, dest, task=GLIOMA)
    write_tables(dest)
    header, *rows = [line.split("\t") for line in (dest / "cases.tsv").read_text().splitlines()]
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert [table[name]["status"] for name in NAMES] == ["rejected", "converted", "converted"]
    assert "empty file" in table[NAMES[0]]["note"]
    assert table[NAMES[2]]["label"] == "none"
    found = json.loads((dest / "dataset.json").read_text())
    assert (found["cases"], found["rejected"], found["labelled"]) == (2, 1, 1)
    assert found["source_shape"]["max"] == [12, 10, 8]


def test_names_that_a_shell_or_a_browser_acts_on_are_names_and_nothing_else(
    write_case: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = sorted(name for name in HOSTILE if "/" not in name)
    for name in names:
        src = write_case(name)
    assert statuses(src, tmp_path / "dest", labels="brats2020") == dict.fromkeys(names, "converted")
    for name in names:
        written = write_restored(tmp_path / "dest", name, tmp_path / "out")
        assert {path.parent for path in written} == {tmp_path / "out"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "out", "src"]
