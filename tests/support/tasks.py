"""Tasks for tests: the default one, and small ones with any number of sequences and regions."""

from preprocess.task import Task, default_task

GLIOMA = default_task()
SUBSETS = tuple(GLIOMA.subset(name) for name in GLIOMA.subset_names)
"""The 15 combinations, in the order of tables."""


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
