"""Tasks that the tests use besides the one that is shipped as the default."""

from typing import Any

from preprocess.task import Task, default_task

GLIOMA = default_task()
SEQUENCES = GLIOMA.modalities
NCR, ED, ET = (GLIOMA.classes[name] for name in ("NCR", "ED", "ET"))
RULE = {"dilation": 3, "smallest_mm3": 50, "penalty_mm": 374}
PARTS: dict[str, Any] = {
    "classes": {"NCR": 1, "ED": 2, "ET": 3},
    "regions": {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]},
    "paint": {"WT": "ED", "TC": "NCR", "ET": "ET"},
    "lesions": RULE,
    "numbering": {"brats2023": {"NCR": 1, "ED": 2, "ET": 3}},
}
"""Glioma without its sequences, to be given others."""


def task_of(*sequences: str, name: str = "mine", **changed: Any) -> Task:
    """Return a task of one's own: glioma by other sequences, with other keys where they are given."""
    return Task.model_validate({"name": name, "sequences": {s: s.upper() for s in sequences}, **PARTS, **changed})


def changed(task: Task, **keys: Any) -> Task:
    """Return a task with other keys; a copy would keep what is remembered of the old ones, such as its digest."""
    return Task.model_validate({**task.model_dump(), **keys})


ONE = task_of("t1ce", name="one")
TWO = task_of("t2", "flair", name="two")
FIVE = task_of("flair", "t1", "t1ce", "t2", "adc", name="five")
SHELLS = Task.model_validate(
    {
        "name": "shells",
        "sequences": {"t1": "T1", "ct": "CT"},
        "classes": {"rim": 2, "middle": 1, "heart": 3},
        "regions": {"all": ["rim", "middle", "heart"], "inside": ["middle", "heart"], "heart": ["heart"]},
        "paint": {"all": "rim", "inside": "middle", "heart": "heart"},
        "lesions": RULE,
        "numbering": {"shells": {"rim": 10, "middle": 20, "heart": 255}},
    }
)
FOURTH = task_of(
    "flair",
    "t1ce",
    name="fourth",
    classes={"NCR": 1, "ED": 2, "ET": 3, "RC": 4},
    regions={**PARTS["regions"], "RC": ["RC"]},
    paint={**PARTS["paint"], "RC": "RC"},
    numbering={"brats2024": {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}},
)
TASKS = {task.name: task for task in (ONE, TWO, FIVE, SHELLS, FOURTH)}
"""Of one, two and five sequences; with classes that no phantom knows; with a fourth region."""
