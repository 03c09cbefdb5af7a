"""Tasks with any number of sequences and classes, from phantoms to stores and back; mixtures are rejected by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from preprocess.audit import audit, write_audit
from preprocess.convert import convert
from preprocess.dataset import data_task, write_tables
from preprocess.errors import InputError
from preprocess.phantom.cohort import case_names, make_case, write_cohort
from preprocess.restore import restore_image, restore_label
from preprocess.source import nifti
from preprocess.source.accounts import find_cases, summary, task_hint
from preprocess.source.layouts import FOLDER_LAYOUT, discover
from preprocess.splits import Split, make_split, read_split
from preprocess.store.reader import CaseStore, list_cases
from preprocess.task import Task, shipped_tasks
from support.tasks import FIVE, FOURTH, GLIOMA, ONE, SHELLS, TASKS, TWO, changed, task_of

SOME = {**TASKS, **{name: shipped_tasks()[name] for name in ("brats-ped", "brats-men-rt", "glioma-whole")}}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Eight phantoms of each task, and their stores."""
    places = {}
    for name, task in SOME.items():
        places[name] = tmp_path_factory.mktemp(name)
        list(write_cohort(places[name] / "src", cases=8, size=32, seed=1, task=task))
        assert {item.status for item in convert(places[name] / "src", places[name] / "data", task=task)} == {
            "converted"
        }
    return places


@pytest.mark.parametrize("name", SOME)
def test_every_task_has_phantoms_with_all_its_classes(name: str, cohorts: dict[str, Path]) -> None:
    task, folder = SOME[name], cohorts[name]
    found = discover(folder / "src", task=task)
    assert [case.case for case in found] == case_names(8, task)
    assert all((tuple(case.images), case.layout) == (task.modalities, "phantom") for case in found)
    data = folder / "data"
    seen = {int(n) for case in list_cases(data) for n in np.unique(CaseStore(data, case).read_label())}
    assert seen == {0, *task.classes.values()}


@pytest.mark.parametrize("name", SOME)
def test_the_audit_names_sequences_and_classes_of_the_task(name: str, cohorts: dict[str, Path], tmp_path: Path) -> None:
    task = SOME[name]
    found = find_cases(cohorts[name] / "src", task=task)
    audits = audit(found.cases[:2])
    write_audit(audits, found.files, tmp_path, task)
    assert [item.verdict for item in audits] == ["fine"] * 2
    assert all(item.thumbnail for item in audits)
    page = (tmp_path / "audit.html").read_text()
    assert f"left to right:\n{', '.join(task.sequences.values())}, and " in page
    assert f"orange {next(n for n, number in task.classes.items() if number == 1)}" in page
    assert summary(found.files, task)[0].endswith(", ".join(f"{m} 8" for m in (*task.sequences, "segmentation")))


@pytest.mark.parametrize("name", SOME)
def test_stores_have_the_sequences_of_the_task_and_go_back_to_the_same_voxels(
    name: str, cohorts: dict[str, Path]
) -> None:
    task, folder = SOME[name], cohorts[name]
    for case in discover(folder / "src", task=task)[:3]:
        store = CaseStore(folder / "data", case.case)
        assert store.meta.task == task
        assert store.read_channels(task.modalities).shape == (len(task.sequences), *store.shape)
        assert list(store.meta.volumes_ml) == list(task.regions)
        for sequence, path in case.images.items():
            source, back = nifti.read(path).array, restore_image(store, sequence)
            scale = store.meta.scales[sequence]
            assert (np.abs(back - source) <= 0.5 + 2**-10 * np.abs(source - scale.mean) + 1e-3 * scale.std).all()
        assert case.label is not None
        assert np.array_equal(restore_label(store), nifti.read(case.label).array)


@pytest.mark.parametrize("name", SOME)
def test_split_and_tables_name_the_task(name: str, cohorts: dict[str, Path], tmp_path: Path) -> None:
    task, data = SOME[name], shutil.copytree(cohorts[name] / "data", tmp_path / "data")
    split, notes = make_split(data, seed=1)
    assert notes == []
    assert read_split(data) == split
    assert split.task == task.label
    header, *rows = [line.split("\t") for line in (data / "split.tsv").read_text().splitlines()]
    assert (header, {row[2] for row in rows}) == (["case", "split", "task"], {task.label})
    assert data_task(data) == task
    columns = (data / "cases.tsv").read_text().splitlines()[0].split("\t")
    assert [c for c in columns if c.endswith("_ml")] == [f"{region}_ml" for region in task.regions]


def test_a_sequence_is_drawn_by_its_name_alone() -> None:
    shape, options = (32, 32, 32), {"seed": 3, "index": 1, "difficulty": 0.5}
    glioma, _ = make_case(shape, **options, task=GLIOMA)
    five, _ = make_case(shape, **options, task=FIVE)
    two, _ = make_case(shape, **options, task=task_of("adc", "t2"))
    assert all(np.array_equal(five[name], glioma[name]) for name in glioma)
    assert np.array_equal(two["adc"], five["adc"])
    assert list(two) == ["adc", "t2"]
    brain = glioma["t1"] > 0
    others = {name: make_case(shape, **options, task=task_of(name))[0][name][brain] for name in ("adc", "dwi", "pet")}
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.98 for a in others.values() for b in others.values() if a is not b)


def test_a_cavity_is_as_dark_or_bright_as_csf() -> None:
    images, label = make_case((48, 48, 48), seed=3, index=1, difficulty=0.0, task=FOURTH)
    plain, _ = make_case((48, 48, 48), seed=3, index=1, difficulty=0.0, task=GLIOMA)
    cavity = label == FOURTH.classes["RC"]
    assert cavity.sum() > 50
    assert images["flair"][cavity].mean() < 0.4 * plain["flair"][cavity].mean()
    assert np.array_equal(images["flair"][~cavity], plain["flair"][~cavity])
    has_one = [(make_case((32, 32, 32), seed=3, index=i, difficulty=0.5, task=FOURTH)[1] == 4).any() for i in range(6)]
    assert has_one == [False, True, False, False, True, False]


def test_unknown_classes_are_shells_from_outside_to_inside(cohorts: dict[str, Path]) -> None:
    data = cohorts["shells"] / "data"
    label = CaseStore(data, list_cases(data)[0]).read_label()
    tumour = label > 0
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(tumour)
    means = [depth[label == SHELLS.classes[name]].mean() for name in ("middle", "rim", "heart")]
    assert means == sorted(means), "by their numbers, whatever their names"


def test_phantoms_of_one_task_are_rejected_by_another(cohorts: dict[str, Path], tmp_path: Path) -> None:
    found = convert(cohorts["brats-ped"] / "src", tmp_path / "dest", task=GLIOMA)
    assert {item.status for item in found} == {"rejected"}
    assert all("for the task brats-ped, not brats-gli-pre; choose --task brats-ped" in i.message for i in found)
    assert task_hint(found) == ["8 of 8 cases belong to the task brats-ped: --task brats-ped"]
    with pytest.raises(InputError, match=f"{FOLDER_LAYOUT}: numbering: unknown shells; allowed in the task brats-ped"):
        discover(cohorts["shells"] / "src", task=SOME["brats-ped"])


def test_a_layout_in_the_folder_is_never_replaced_unless_phantoms_are_there(tmp_path: Path) -> None:
    (tmp_path / FOLDER_LAYOUT).write_text("mine")
    with pytest.raises(InputError, match=f"and would replace, for example {FOLDER_LAYOUT}; choose"):
        list(write_cohort(tmp_path, cases=1, size=32, seed=0, task=GLIOMA))
    assert (tmp_path / FOLDER_LAYOUT).read_text() == "mine"


def test_a_case_is_converted_again_when_task_or_numbers_changed(cohorts: dict[str, Path], tmp_path: Path) -> None:
    src, dest = cohorts["two"] / "src", tmp_path / "dest"

    def status(task: Task) -> set[str]:
        return {item.status for item in convert(src, dest, task=task)}

    assert status(TWO) == {"converted"}
    assert status(changed(TWO, words={"ET": "other words"})) == {"unchanged"}
    renumbered = {"brats2023": {"NCR": 2, "ED": 1, "ET": 3}}
    assert status(changed(TWO, numbering=renumbered)) == {"converted"}
    assert status(task_of("t2", name="two")) == {"converted"}
    assert CaseStore(dest, list_cases(dest)[0]).modalities == ("t2",)


def test_stores_of_two_tasks_are_rejected_by_name(cohorts: dict[str, Path], tmp_path: Path) -> None:
    first, second = case_names(2, ONE)
    for task, case in ((ONE, first), (TWO, second)):
        shutil.copytree(cohorts[task.name] / f"data/{case}.zarr", tmp_path / f"{case}.zarr")
    with pytest.raises(InputError, match=f"{second} belongs to the task two, but .*{first} to one; tasks cannot be"):
        write_tables(tmp_path)
    with pytest.raises(InputError, match="tasks cannot be mixed"):
        make_split(tmp_path)
    assert not (tmp_path / "cases.tsv").exists()


def test_a_list_of_another_task_is_rejected_by_name(cohorts: dict[str, Path], tmp_path: Path) -> None:
    data = shutil.copytree(cohorts["one"] / "data", tmp_path / "data")
    split, _ = make_split(data)
    listed = tmp_path / "list.tsv"
    for text in (split.as_tsv(), split.as_tsv().replace(ONE.label, "one"), Split.of({}).as_tsv()):
        listed.write_text(text)
        assert make_split(data, listed=listed)[0].task == ONE.label
    listed.write_text(split.as_tsv().replace(ONE.label, TWO.label))
    with pytest.raises(
        InputError, match=rf"list.tsv, line 2: the list is for the task {TWO.label}, but the cases were "
    ):
        make_split(data, listed=listed)


def test_the_hash_of_a_split_does_not_know_the_task() -> None:
    split = Split(("a", "b"), ("c",), ("d",))
    assert split.hash == Split(("a", "b"), ("c",), ("d",), "one@0").hash == "0364e6d8b896"
    assert split.as_tsv() == "case\tsplit\na\ttrain\nb\ttrain\nc\tval\nd\ttest\n"


def test_a_data_set_without_a_task_says_how_to_get_it(cohorts: dict[str, Path], tmp_path: Path) -> None:
    data = shutil.copytree(cohorts["one"] / "data", tmp_path / "data")
    write_tables(data)
    values = json.loads((data / "dataset.json").read_text())
    for odd in (None, {"name": "x"}):
        (data / "dataset.json").write_text(json.dumps({**values, "task": odd}))
        with pytest.raises(InputError, match="does not name the task of the data; `ccsd split"):
            data_task(data)


def test_a_store_of_an_older_version_says_to_convert_again(cohorts: dict[str, Path], tmp_path: Path) -> None:
    src, dest = cohorts["one"] / "src", shutil.copytree(cohorts["one"] / "data", tmp_path / "data")
    case = list_cases(dest)[0]
    path = dest / f"{case}.zarr/zarr.json"
    values = json.loads(path.read_text())
    values["attributes"]["ccsd"]["layout_version"] = 1
    path.write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"written by another version \(layout 1, this one reads 2\); run `ccsd convert`"
    ):
        CaseStore(dest, case)
    assert {i.case for i in convert(src, dest, task=ONE) if i.status == "converted"} == {case}
