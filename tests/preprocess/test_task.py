"""Tasks as data: names resolved or rejected, combinations in order, digests, and files that cannot be used."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from preprocess.errors import InputError
from preprocess.task import (
    ALIASES,
    AnyTask,
    Task,
    default_task,
    is_shipped,
    read_task,
    reject_mixture,
    shipped_tasks,
)
from support import ROOT
from support.tasks import FIVE, GLIOMA, PARTS, SHELLS, TWO, changed, task_of

FIELD = """t2 t1ce t1 flair
t1ce+t2 t1+t1ce flair+t1 t1+t2 flair+t2 flair+t1ce
flair+t1+t1ce flair+t1+t2 flair+t1ce+t2 t1+t1ce+t2
flair+t1+t1ce+t2"""
"""As the tables of RFNet and its descendants print them, in our names."""


def test_fifteen_combinations_unique_and_in_the_order_of_the_field() -> None:
    assert tuple(FIELD.split()) == GLIOMA.subset_names
    assert len({frozenset(name.split("+")) for name in GLIOMA.subset_names}) == 15
    assert [GLIOMA.subset_name(name) for name in GLIOMA.subset_names] == list(GLIOMA.subset_names)


@pytest.mark.parametrize(
    ("names", "combinations"),
    [
        ("a", ["a"]),
        ("b a", ["b", "a", "b+a"]),
        ("a b c", ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]),
    ],
)
def test_few_sequences_have_all_combinations(names: str, combinations: list[str]) -> None:
    task = task_of(*names.split())
    assert list(task.subset_names) == combinations
    assert task.full_name == combinations[-1]


@pytest.mark.parametrize(("count", "expected"), [(4, 15), (5, 31), (6, 13), (16, 33)])
def test_above_five_sequences_only_the_small_and_the_large_ones(count: int, expected: int) -> None:
    task = task_of(*(f"s{number}" for number in range(count)))
    sizes = [name.count("+") + 1 for name in task.subset_names]
    assert len(set(task.subset_names)) == len(sizes) == expected
    assert set(sizes) == (set(range(1, count + 1)) if count < 6 else {1, count - 1, count})
    assert all(task.is_subset(name) for name in task.subset_names)


def test_combinations_beside_the_usual_ones_have_an_order() -> None:
    task = task_of("a", "b", "c", "d", "e", "f")
    assert task.ordered_subsets(["f", "a+b+c+d+e+f", "a"]) == ["a", "f", "a+b+c+d+e+f"]
    assert task.ordered_subsets(["b+c", "f", "a+e", "a+b+c"]) == ["f", "a+e", "b+c", "a+b+c"]
    assert GLIOMA.ordered_subsets(["flair", "t2", "flair+t1"]) == ["t2", "flair", "flair+t1"]
    assert not task.is_subset("b+a")
    assert not task.is_subset("")
    assert task.display_name("a+b") == "A + B"


@given(st.lists(st.sampled_from(sorted(ALIASES)), min_size=1), st.sampled_from(["+", ",", " + "]))
def test_a_name_has_one_canonical_form(aliases: list[str], joint: str) -> None:
    name = GLIOMA.subset_name(joint.join(alias.upper() for alias in aliases))
    assert name in GLIOMA.subset_names
    assert set(name.split("+")) == {GLIOMA.modality(alias) for alias in aliases}
    assert {GLIOMA.subset_name("+".join(order)) for order in permutations(name.split("+"))} == {name}


@pytest.mark.parametrize(
    "names",
    [
        ["flair", "t1", "t1ce", "t2"],  # BraTS until 2021
        ["t2f", "t1n", "t1c", "t2w"],  # BraTS since 2023
        ["FLAIR", "T1w", "t1gd", "T2w"],  # MSD
        ["T2-FLAIR", "T1", "T1contrast", "T2"],
        ["T2FLAIR", " t1 ", "T1CE", "t2"],
    ],
)
def test_names_of_the_data_sets_mean_what_they_say(names: list[str]) -> None:
    assert [GLIOMA.modality(name) for name in names] == ["flair", "t1", "t1ce", "t2"]


def test_a_sequence_of_the_task_comes_before_an_alias() -> None:
    task = task_of("t1c", "t2f", "adc")
    assert [task.modality(name) for name in ("T1C", "t2f", "ADC")] == ["t1c", "t2f", "adc"]
    assert TWO.subset("flair+T2w") == ("t2", "flair"), "the order of the task"
    with pytest.raises(InputError, match=r"unknown modality 't1ce'; allowed: t1c, t2f, adc$"):
        task.modality("t1ce")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("", r"no modality in ''; give at least one of flair, t1, t1ce, t2, joined by '\+'"),
        ("+", r"no modality in '\+'; give at least one of flair, t1, t1ce, t2, joined by '\+'"),
        ("t3", "unknown modality 't3'; allowed: flair, t1, t1ce, t2, t2f, .*, t2w$"),
        ("flair+dwi", "unknown modality 'dwi'; allowed: flair, t1, t1ce, t2, t2f, .*, t2w$"),
    ],
)
def test_what_is_no_combination_is_rejected_with_the_names_that_are(wrong: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GLIOMA.subset_name(wrong)


def test_the_default_task_is_glioma_as_it_always_was() -> None:
    assert GLIOMA.modalities == ("flair", "t1", "t1ce", "t2")
    assert {name: GLIOMA.numbers(name) for name in GLIOMA.regions} == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    assert list(GLIOMA.paint.items()) == [("WT", "ED"), ("TC", "NCR"), ("ET", "ET")]
    assert GLIOMA.default_convention.name == "brats2023"


def test_shipped_tasks_are_read_by_name_and_no_two_are_one() -> None:
    tasks = shipped_tasks()
    assert default_task() is tasks["brats-gli-pre"]
    assert len({task.digest for task in tasks.values()}) == len(tasks)
    assert all(read_task(name) is task and is_shipped(task) for name, task in tasks.items())
    assert not is_shipped(task_of("t1", name="brats-ped"))
    assert all(task.word(name) for task in tasks.values() for name in task.scored_regions)


def test_the_documentation_lists_every_shipped_task_with_what_it_has() -> None:
    page = (ROOT / "docs/reference/data.md").read_text()
    table = page[page.index("## Tasks") : page.index("### Keys of a task file")]
    for task in shipped_tasks().values():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{task.name}` |")]
        assert row.endswith(f"| {', '.join(task.sequences.values())} | {', '.join(task.classes)} | "
                            f"{', '.join(task.scored_regions)} |")  # fmt: skip


def test_digests_tell_what_they_are_for() -> None:
    same = changed(GLIOMA, words={}, sequences={name: name.upper() for name in GLIOMA.sequences})
    rule = changed(GLIOMA, lesions={**PARTS["lesions"], "dilation": 1})
    order = changed(GLIOMA, sequences=dict(reversed(GLIOMA.sequences.items())))
    assert same.digest == rule.digest == GLIOMA.digest != order.digest
    assert same.scoring_digest == GLIOMA.scoring_digest != rule.scoring_digest
    assert GLIOMA.label == f"brats-gli-pre@{GLIOMA.digest}"


def test_a_task_in_a_model_is_a_name_a_file_or_whole(tmp_path: Path) -> None:
    class Holder(BaseModel):
        task: AnyTask

    path = tmp_path / "shells.yaml"
    path.write_text(
        yaml.safe_dump(SHELLS.model_dump(mode="json", exclude={"name"}, exclude_none=True), sort_keys=False)
    )
    assert read_task(str(path)) == SHELLS
    assert Holder.model_validate({"task": str(path)}).task.digest == SHELLS.digest
    whole = json.loads(Holder(task=SHELLS).model_dump_json())
    path.unlink()
    assert Holder.model_validate(whole).task.scoring_digest == SHELLS.scoring_digest
    with pytest.raises(ValueError, match=r"task shells: unknown; give the path of a .yaml file, or one of brats-gli-"):
        Holder.model_validate({"task": "shells"})


def test_mixtures_are_rejected_by_name() -> None:
    words = changed(GLIOMA, words={})
    reject_mixture([("a", GLIOMA), ("b", words)])
    reject_mixture([])
    with pytest.raises(InputError, match=r"^c belongs to the task two, but a to brats-gli-pre; tasks cannot be mixed"):
        reject_mixture([("a", GLIOMA), ("b", words), ("c", TWO)])
    other = task_of("t2", name="two")
    with pytest.raises(InputError, match=f"belongs to the task {other.label}, but a to {TWO.label}; "):
        reject_mixture([("a", TWO), ("b", other)])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"kinds": {}}, "kinds: unknown key; allowed: name, sequences, classes"),
    "unknown key inside": ({"lesions": {**PARTS["lesions"], "x": 1}}, "lesions.x: unknown key$"),
    "no sequence": ({"sequences": {}}, "sequences: give at least 1"),
    "many sequences": ({"sequences": {f"s{n}": "S" for n in range(17)}}, "sequences: give at most 16"),
    "name of a sequence": ({"sequences": {"T1": "T1"}}, "sequences.T1.*: String should match pattern"),
    "word for labels": ({"sequences": {"mask": "M"}}, "sequences: mask means something else in file names"),
    "gap": ({"classes": {"NCR": 1, "ED": 2, "ET": 4}}, "classes: number them from 1 to 3, each once"),
    "twice": ({"classes": {"NCR": 1, "ED": 2, "ET": 2}}, "classes: number them from 1 to 3, each once"),
    "class too large": ({"classes": {"NCR": 256}}, "classes.NCR: Input should be less than or equal to 255"),
    "unknown class": ({"regions": {"WT": ["NCR", "X"]}}, "regions: unknown X; allowed: NCR, ED, ET"),
    "empty region": ({"regions": {**PARTS["regions"], "X": []}}, "regions: X needs at least one class, and none twice"),
    "class twice": ({"scored": {"X": ["ET", "ET"]}}, "regions: X needs at least one class, and none twice"),
    "lost class": ({"regions": {"WT": ["NCR", "ED"]}, "paint": {"WT": "ED"}}, "regions: no region has the class ET"),
    "case": ({"scored": {"wt": ["ET"]}}, "regions: two names differ only in upper and lower case"),
    "scored twice": ({"scored": {"WT": ["ET"]}}, "scored: WT is already among the regions"),
    "scored class": ({"scored": {"X": ["Y"]}}, "scored: unknown Y"),
    "painted region": ({"paint": {"X": "ET"}}, "paint: unknown X; allowed: WT, TC, ET"),
    "painted class": ({"paint": {"WT": "X"}}, "paint: unknown X; allowed: NCR, ED, ET"),
    "not painted": ({"paint": {"WT": "ED", "TC": "NCR"}}, "paint: no region is painted as ET"),
    "not a part": ({"paint": {"WT": "ED", "TC": "NCR", "ET": "ED"}}, "paint: (no region is painted as ET|ET is)"),
    "foreign paint": (
        {"paint": {"WT": "ET", "TC": "NCR", "ET": "ED"}},
        "paint: ET is painted as ED, which is not part of it",
    ),
    "lesion region": ({"lesions": {**PARTS["lesions"], "regions": {"X": {}}}}, "lesions.regions: unknown X; allowed"),
    "merged region": (
        {"lesions": {**PARTS["lesions"], "merged_via": {"X": ["ET"]}}},
        "lesions.merged_via: unknown X; allowed: WT",
    ),
    "merged class": (
        {"lesions": {**PARTS["lesions"], "merged_via": {"ET": ["TC"]}}},
        "lesions.merged_via: unknown TC; allowed: NCR",
    ),
    "penalty": ({"lesions": {**PARTS["lesions"], "penalty_mm": float("nan")}}, "lesions.penalty_mm"),
    "clean-up": ({"cleanup": {"X": {"below_mm3": 1, "becomes": "ET"}}}, "cleanup: unknown X; allowed: NCR"),
    "clean-up into": ({"cleanup": {"ET": {"below_mm3": 1, "becomes": "X"}}}, "cleanup: unknown X; allowed: NCR"),
    "one number": ({"numbering": {"n": {"NCR": 1, "ED": 1, "ET": 2}}}, "numbering.n: two classes have the same number"),
    "no class": ({"numbering": {"n": {"X": 1}}}, "numbering.n: has none of the classes NCR, ED, ET"),
    "incomplete": ({"numbering": {"n": {"NCR": 1, "ED": 2}}}, "numbering: give one with a number for every class"),
    "number": ({"numbering": {"n": {"NCR": 0}}}, "numbering.n.NCR: Input should be greater than or equal to 1"),
    "several": ({"sequences": {}, "classes": {}}, "sequences: .*; classes: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_task_that_cannot_be_used_is_rejected_with_file_key_and_what_is_allowed(kind: str, tmp_path: Path) -> None:
    keys, message = WRONG[kind]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"sequences": {"t1": "T1"}, **PARTS, **keys}, sort_keys=False))
    with pytest.raises(InputError, match=message) as caught:
        read_task(str(path))
    assert str(caught.value).startswith(f"{path}: the task cannot be used: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not valid YAML"), ("[]", "expected the keys of a task"), ("name: x\nname: y", "name: given twice")],
)
def test_a_file_that_is_no_task(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_task(str(tmp_path / "mine.yaml"))
    with pytest.raises(InputError, match=r"gone.yaml: cannot read the task"):
        read_task(str(tmp_path / "gone.yaml"))


def test_lesion_limits_of_a_region_come_before_those_of_all() -> None:
    post = shipped_tasks()["brats-gli-post"].lesions
    assert (post.limits("WT"), post.limits("ET"), post.limits("RC")) == ((3, 20), (3, 10), (5, 20))


def test_every_sequence_of_the_conventions_has_its_numbers() -> None:
    post = shipped_tasks()["brats-gli-post"]
    assert str(post.conventions["brats2024"]) == "0 background, 1 NCR, 2 ED, 3 ET, 4 RC"
    assert post.output_convention(post.conventions["brats2023"]).name == "brats2024", "it has no cavity"
    with pytest.raises(
        InputError, match="labels msd: unknown convention of the task brats-gli-post; allowed: brats2024"
    ):
        post.convention("msd")


def test_a_task_is_made_from_its_own_dump() -> None:
    for task in (*shipped_tasks().values(), FIVE, SHELLS):
        back = Task.model_validate_json(task.model_dump_json(exclude_none=True))
        assert back == task
        assert list(back.classes) == list(task.classes)
        assert back.scoring_digest == task.scoring_digest


def test_the_example_in_the_documentation_is_a_task(tmp_path: Path) -> None:
    guide = (ROOT / "docs/how-to/data.md").read_text()
    start = guide.index("sequences: {")
    (tmp_path / "mine.yaml").write_text(guide[start : guide.index("```", start)])
    task = read_task(str(tmp_path / "mine.yaml"))
    assert (task.modalities, task.conventions["brats2023"].foreign) == (("t1ce", "adc"), {2: "ED"})
    page = (ROOT / "docs/reference/data.md").read_text()
    table = page[page.index("### Keys of a task file") : page.index("## Layouts")]
    keys = {line.split("`")[1] for line in table.splitlines() if line[:3] == "| `"}
    assert {name for name in Task.model_fields if name != "name"} <= keys
