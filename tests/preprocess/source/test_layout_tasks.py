"""Which layouts fit which tasks, which files a task ignores, and what `dataset.json` says about label numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from preprocess.convert import convert
from preprocess.dataset import read_metas
from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.accounts import find_cases, task_hint, unused
from preprocess.source.layouts import FOLDER_LAYOUT, IGNORED, UNKNOWN, discover, survey
from preprocess.source.layouts.layout import shipped_layouts
from preprocess.source.layouts.numbers import numbering_of
from preprocess.task import Task, shipped_tasks
from support.sources import roles, touch
from support.tasks import FOURTH, GLIOMA, ONE, RULE, TWO, task_of

NEW = ("t2f", "t1n", "t1c", "t2w", "seg")
PED = [f"BraTS-PEDs2024_Training/BraTS-PED-00004-000-{m}.nii.gz" for m in NEW]
LAYOUT = """
case: "P[0-9]+"
files: {adc: "{case}/diffusion", t1ce: "{case}/contrast", segmentation: "{case}/tumour"}
"""
FITS = {
    "brats-ped": ("BraTS-PED-00004-000", NEW),
    "brats-men": ("BraTS-MEN-00004-000", NEW),
    "brats-met": ("BraTS-MET-00004-000", NEW),
    "brats-ssa": ("BraTS-SSA-00004-000", NEW),
    "brats-gli-post": ("BraTS-GLI-00004-100", NEW),
    "brats-gli-pre": ("BraTS-GLI-00004-000", NEW),
}


@pytest.mark.parametrize("name", FITS)
def test_a_released_data_set_fits_its_task_alone(name: str, tmp_path: Path) -> None:
    case, words = FITS[name]
    touch(tmp_path, *(f"{name}-2024/{case}/{case}-{word}.nii.gz" for word in words))
    for task in shipped_tasks().values():
        (found,) = discover(tmp_path, task=task)
        layout = next(layout for layout in shipped_layouts() if layout.name == found.layout)
        assert (found.problem is None) == (task.name in layout.tasks)
        assert bool(found.meant) == (found.problem is not None)
        if found.problem:
            assert f", not {task.name}; choose --task {layout.tasks[0]} (task in the" in found.problem
        elif found.numbering is not None:
            assert found.convention.name == found.numbering


def test_every_shipped_task_has_data_and_every_layout_a_task() -> None:
    named = {name for layout in shipped_layouts() for name in layout.tasks}
    assert named == set(shipped_tasks())
    for layout in shipped_layouts():
        fitting = [task.name for task in shipped_tasks().values() if not layout.misfit(task)]
        assert set(fitting) == set(layout.tasks or shipped_tasks())


def test_a_task_of_ones_own_fits_where_it_knows_the_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *PED)
    (case,) = discover(tmp_path, task=ONE)
    assert case.meant == "brats-ped"
    assert str(case.problem).startswith(
        "BraTS-PED-00004-000 has the layout brats-ped, whose label numbers are those of brats-ped2024, but the task "
        "one has brats2023; "
    )
    ped = shipped_tasks()["brats-ped"]
    mine = Task.model_validate({**ped.model_dump(), "name": "mine", "sequences": {"t1ce": "T1ce", "t2": "T2"}})
    (case,) = discover(tmp_path, task=mine)
    assert (case.problem, list(case.images), case.numbering) == (None, ["t1ce", "t2"], "brats-ped2024")


def test_files_of_other_sequences_are_ignored_and_told(tmp_path: Path) -> None:
    touch(tmp_path, "BraTS2021_00000/BraTS2021_00000_t1.nii", "BraTS2021_00000/BraTS2021_00000_flair.nii", *PED)
    touch(tmp_path, "P1/P1_t1ce.nii", "P1/P1_t2.nii", "P1/P1_FLAIR.nii", "P1/P1_FLAIR.nii.gz", "P1/P1_adc.nii")
    found = survey([tmp_path], task=ONE)
    own = next(case for case in found.cases if case.case == "P1")
    assert (list(own.images), own.problem) == (["t1ce"], None), (
        "two files for a sequence that nobody wants do not matter"
    )
    given = roles(found, tmp_path)
    assert [given[f"P1/P1_{m}"] for m in ("t2.nii", "FLAIR.nii.gz", "adc.nii")] == [IGNORED, IGNORED, UNKNOWN]
    (line,) = [line for line in unused(found.files) if "not a sequence" in line]
    assert line.startswith("not used, because it is not a sequence of the task one: ")
    pattern = next(file.pattern for file in found.files if file.path.name == "P1_t2.nii")
    assert pattern == "*t2: t2 is not a sequence of the task one"


def test_a_case_with_no_sequence_of_the_task_is_rejected_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "src", "P1/P1_t1.nii", "P1/P1_FLAIR.nii", "P2/P2_t1ce.nii")
    (first, second) = discover(tmp_path / "src", task=ONE)
    assert second.problem is None
    assert str(first.problem).startswith("none of its sequences (flair, t1) is one of the task one, which has t1ce; ")
    assert (
        "none of its sequences"
        in {i.case: i.message for i in convert(tmp_path / "src", tmp_path / "d", task=ONE)}["P1"]
    )


def test_four_sequences_in_one_file_give_those_of_the_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 100, (6, 5, 4, 4)).astype(np.int16)
    for folder, array in (("imagesTr", image), ("labelsTr", rng.integers(0, 4, (6, 5, 4)).astype(np.uint8))):
        (tmp_path / "src" / folder).mkdir(parents=True)
        nifti.write(tmp_path / "src" / folder / "BRATS_001.nii.gz", array, np.eye(4))
    numbering = {"msd": {"ED": 1, "NCR": 2, "ET": 3}}
    task = task_of("t2", "flair", numbering=numbering)
    found = survey([tmp_path / "src"], task=task)
    assert {file.role for file in found.files} == {"t2+flair", "segmentation"}
    assert [item.status for item in convert(tmp_path / "src", tmp_path / "dest", task=task)] == ["converted"]
    (meta,) = read_metas(tmp_path / "dest").values()
    assert [meta.scales[m].mean for m in ("flair", "t2")] == pytest.approx(image.mean(axis=(0, 1, 2))[[0, 3]])


@pytest.mark.parametrize("file", ["P1_adc", "adc", "P1_ADC", "adc/P1_adc"])
def test_names_of_ones_own_may_end_in_any_sequence_of_the_task(file: str, tmp_path: Path) -> None:
    task = task_of("t1ce", "adc", "t2f")
    touch(tmp_path, f"P1/{file}.nii", "P1/P1_t2f.nii", "P1/P1_dwi.nii", "P1/P1_brain_adc.nii", "P1/P1_adc_mask.nii")
    found = survey([tmp_path], task=task)
    assert roles(found, tmp_path) == {
        f"P1/{file}.nii": "adc", "P1/P1_t2f.nii": "t2f",
        **dict.fromkeys(["P1/P1_dwi.nii", "P1/P1_brain_adc.nii", "P1/P1_adc_mask.nii"], UNKNOWN),
    }  # fmt: skip


def test_a_layout_may_have_any_sequence_and_lie_in_the_folder_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / FOLDER_LAYOUT).write_text(LAYOUT)
    (tmp_path / "mine.yaml").write_text(LAYOUT)
    src = touch(tmp_path / "src", "P1/diffusion.nii", "P1/contrast.nii", "P1/tumour.nii", "P2/P2_t1ce.nii")
    task = task_of("t1ce", "adc")
    found = discover(src, task=task)
    assert {case.case: list(case.images) for case in found} == {"P1": ["t1ce", "adc"], "P2": ["t1ce"]}
    assert [case.layout for case in found] == ["ccsd-layout", "generic"]
    (case,) = discover(src, task, str(tmp_path / "mine.yaml"))
    assert (case.layout, list(case.images)) == ("mine", ["t1ce", "adc"])
    assert list(discover(src, task=GLIOMA)[0].images) == ["t1ce"]
    (src / FOLDER_LAYOUT).write_text("case: (")
    with pytest.raises(InputError, match=f"src/{FOLDER_LAYOUT}: not valid YAML|the layout cannot be used"):
        discover(src, task=task)


def test_most_cases_of_another_task_name_it(tmp_path: Path) -> None:
    touch(tmp_path, *PED)
    assert task_hint(find_cases(tmp_path, task=GLIOMA).cases) == [
        "1 of 1 cases belong to the task brats-ped: --task brats-ped"
    ]
    touch(tmp_path, *(f"P{n}/P{n}_t1.nii" for n in (1, 2)))
    assert task_hint(find_cases(tmp_path, task=GLIOMA).cases) == []


def test_conventions_named_by_the_user_are_those_of_the_task(tmp_path: Path) -> None:
    touch(tmp_path, "P1/P1_t1ce.nii")
    (case,) = find_cases(tmp_path, labels="brats2023", task=ONE).cases
    assert case.convention is ONE.conventions["brats2023"]
    with pytest.raises(InputError, match="labels msd: unknown convention of the task one; allowed: brats2023"):
        find_cases(tmp_path, labels="msd", task=ONE)


LABELS = {
    "classes": ({"background": 0, "NCR": 2, "ED": 1, "ET": 3}, {2: 1, 1: 2, 3: 3}),
    "synonyms": ({"background": 0, "Necrosis": 1, "SNFH": 2, "enhancing tumor": 4}, {1: 1, 2: 2, 4: 3}),
    "British": ({"background": 0, "netc": 1, "oedema": 2, "ET": 3}, {1: 1, 2: 2, 3: 3}),
    "not all": ({"background": 0, "ET": 1}, {1: 3}),
    "lists of one": ({"background": [0], "NCR": [1], "ED": [2], "ET": [3]}, {1: 1, 2: 2, 3: 3}),
    "version 1": ({"0": "background", "1": "edema", "2": "NCR", "3": "ET"}, {1: 2, 2: 1, 3: 3}),
    "regions": ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "ET": [3]}, {1: 2, 2: 1, 3: 3}),
    "regions, one by number": ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3}, {1: 1, 2: 2, 3: 3}),
    "two regions": ({"background": 0, "WT": [1, 2, 3], "TC": [2, 3]}, None),
    "unknown name": ({"background": 0, "NCR": 1, "ED": 2, "ET": 3, "stroke": 4}, None),
    "cavity": ({"background": 0, "NCR": 1, "ED": 2, "ET": 3, "RC": 4}, None),
    "unknown region": ({"background": 0, "tumor": [1, 2, 3], "ET": [3]}, None),
    "one class twice": ({"background": 0, "NCR": 1, "necrosis": 2, "ET": 3}, None),
    "one number twice": ({"background": 0, "NCR": 1, "ED": 1}, None),
    "text": ({"background": 0, "NCR": "one"}, None),
    "below zero": ({"background": 0, "NCR": -1}, None),
    "background as a class": ({"NCR": 0, "ED": 1}, None),
    "half a number": ({"background": 0, "NCR": 1.5}, None),
    "truth": ({"background": 0, "NCR": True}, None),
    "only background": ({"background": 0}, None),
    "no mapping": (["background", "NCR"], None),
    "nothing": (None, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_names_in_dataset_json_say_what_numbers_mean_if_all_are_known(kind: str, tmp_path: Path) -> None:
    labels, values = LABELS[kind]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = numbering_of(str(tmp_path), GLIOMA)
    assert (None if found is None else found.values) == values
    if found is not None:
        assert {found.names[number] for number in found.values} <= set(GLIOMA.classes)
        assert not found.foreign


def test_a_cavity_is_known_where_the_task_has_it(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS["cavity"][0]}))
    found = numbering_of(str(tmp_path), FOURTH)
    assert found is not None
    assert found.values == {1: 1, 2: 2, 3: 3, 4: 4}
    single = Task.model_validate(
        {"name": "s", "sequences": {"t1": "T1"}, "classes": {"lesion": 1}, "regions": {"lesion": ["lesion"]},
         "paint": {"lesion": "lesion"}, "lesions": RULE, "numbering": {"n": {"lesion": 9}}}
    )  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Lesion": 1}}))
    assert numbering_of(str(tmp_path), single).values == {1: 1}


def test_nnunet_with_known_names_is_converted_without_a_word(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    src = tmp_path / "src"
    for folder in ("imagesTr", "labelsTr"):
        (src / folder).mkdir(parents=True)
    for number in range(2):
        nifti.write(src / f"imagesTr/A_000{number}.nii.gz", rng.integers(1, 99, (9, 9, 9)).astype(np.int16), np.eye(4))
    label = np.zeros((9, 9, 9), np.uint8)
    label[2:5, 3:6, 3:6] = rng.integers(0, 4, (3, 3, 3))
    nifti.write(src / "labelsTr/A.nii.gz", label, np.eye(4))
    values = {"channel_names": {"0": "T2", "1": "Flair"}, "labels": {"background": 0, "ET": 1, "ED": 2, "NCR": 3}}

    def converted(**options: object) -> str:
        (item,) = convert(src, tmp_path / "dest", task=TWO, **options)
        return f"{item.status} {item.message}"

    (src / "dataset.json").write_text(json.dumps({**values, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}}))
    assert "neither the layout nor an option explains them" in converted()
    (src / "dataset.json").write_text(json.dumps(values))
    assert converted().startswith("converted")
    assert converted().startswith("unchanged")
    (meta,) = read_metas(tmp_path / "dest").values()
    assert (meta.label_convention.name, meta.label_convention.values) == ("dataset.json", {1: 3, 2: 2, 3: 1})
    assert meta.volumes_ml["ET"] == pytest.approx((label == 1).sum() / 1000)
    (src / "dataset.json").write_text(json.dumps({**values, "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3}}))
    assert converted().startswith("converted"), "the numbers changed"
    assert converted(labels="brats2023").startswith("converted"), "the user's word, which is stored"
