"""Tasks that the tests use besides the one that is shipped as the default."""

from typing import Any

from preprocess.task import Task, default_task

GLIOMA = default_task()
SEQUENCES = GLIOMA.modalities
SUBSETS = tuple(GLIOMA.subset(name) for name in GLIOMA.subset_names)
"""The 15 combinations, in the order of tables."""
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


def small_task(sequences: int, regions: int = 1) -> Task:
    """Return a task `tiny` with sequences s0, s1, ... and as many classes as regions, each region one less than before.

    Its last class is in the first and in a scored region only, so that regions overlap and not all have a channel.
    """
    classes = [f"C{number}" for number in range(regions)]
    return Task.model_validate(
        {
            "name": "tiny",
            "sequences": {f"s{number}": f"S{number}" for number in range(sequences)},
            "classes": {name: number for number, name in enumerate(classes, start=1)},
            "regions": {f"R{number}": classes[number:] for number in range(regions)},
            "scored": {"FIRST": [classes[0]]},
            "paint": {f"R{number}": name for number, name in enumerate(classes)},
            "lesions": {"dilation": 1, "smallest_mm3": 10, "penalty_mm": "diagonal", "predicted": "voxels"},
            "numbering": {"tiny": {name: number + 1 for number, name in enumerate(reversed(classes))}},
        }
    )
