"""Random task files: values of every type in every place are used or named in one message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.source.layouts.layout import read_layout
from preprocess.task import Task, read_task, shipped_tasks
from support.fuzzing import attempt

EASY = {"suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}
NAMES = ("flair", "t1", "seg", "NCR", "ED", "ET", "WT", "TC", "brats2023", "", "X", "a b", "../x", "t" * 30, "\0")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.sampled_from([10**30, 2**63]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(NAMES),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
TASKS = [task.model_dump(mode="json", exclude={"name"}, exclude_none=True) for task in shipped_tasks().values()]


@st.composite
def task_files(draw: Callable[..., Any]) -> dict[str, Any]:
    """Return a shipped task with one or two values replaced, removed or added, at any depth."""
    raw = yaml.safe_load(yaml.safe_dump(draw(st.sampled_from(TASKS)), sort_keys=False))
    for _ in range(draw(st.integers(1, 2))):
        node = raw
        while (below := [key for key, value in node.items() if isinstance(value, dict) and value]) and draw(
            st.booleans()
        ):
            node = node[draw(st.sampled_from(below))]
        key = draw(st.sampled_from([*node, "x", *NAMES]))
        if draw(st.integers(0, 4)) or key not in node:
            own = [value for value in node.values() if not isinstance(value, dict)]
            node[key] = draw(st.one_of(values, st.sampled_from([*own, 1])))
        else:
            del node[key]
    return raw


def use(task: Task) -> None:
    """Ask a task for all it is asked for elsewhere."""
    assert task.subset_names[-1] == task.full_name
    assert all(task.is_subset(name) and task.subset_name(name) == name for name in task.subset_names)
    assert task.output_convention(next(iter(task.conventions.values()))).values
    assert set(task.default_convention.values.values()) == set(task.classes.values())
    assert {number for region in task.regions for number in task.numbers(region)} == set(task.classes.values())
    assert all(task.lesions.limits(region) for region in task.scored_regions)
    back = Task.model_validate_json(task.model_dump_json(exclude_none=True))
    assert (back.digest, back.scoring_digest) == (task.digest, task.scoring_digest)


def test_random_values(tries: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    used = 0

    def one(raw: dict[str, Any]) -> None:
        nonlocal used
        path.write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
        task, message = attempt(lambda: read_task(str(path)), repr(raw))
        if message:
            assert str(path) in message
        else:
            use(task)
            used += 1

    settings(max_examples=15 * tries, **EASY)(given(task_files())(one))()
    assert used > tries // 2, "most are rejected, but some have to go all the way"


@pytest.mark.filterwarnings("ignore:Possible (nested set|set )")
def test_random_layouts_of_any_task(tries: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    own = {"case": "P[0-9]+", "files": {"flair": "{case}_a", "adc": "{case}_b"}, "tasks": ["brats-ped"]}

    def one(key: str, value: Any) -> None:
        path.write_text(yaml.safe_dump({**own, key: value}, allow_unicode=True), encoding="utf-8")
        for task in shipped_tasks().values():
            layout, message = attempt(lambda task=task: read_layout(str(path), task), repr(value))
            assert str(path) in message if message else isinstance(layout.misfit(task), str)

    keys = st.sampled_from([*own, "numbering", "channels", "ignored", "name", "patients", "below"])
    settings(max_examples=5 * tries, **EASY)(given(keys, values)(one))()
    patterns = st.text("()[]{}?*+|\\\\^$/-P<>:=!19", max_size=9)
    settings(max_examples=5 * tries, **EASY)(given(st.sampled_from(["case", "ignored", "below"]), patterns)(one))()
