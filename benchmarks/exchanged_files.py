"""How often the check `contrast` is wrong on correct cases, and how many exchanged files it finds, for any folder.

Each case is checked as it is, and with each pair of its files exchanged in memory, with and without its segmentation.
"""

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from preprocess.checks.contrast import contrasts
from preprocess.errors import InputError
from preprocess.source.accounts import find_cases
from preprocess.source.load import Loaded, load
from preprocess.task import DEFAULT_TASK, read_task


def exchanges(case: Loaded) -> Iterator[tuple[str, Loaded]]:
    """Yield the case with two files exchanged, for each pair."""
    for first, second in combinations(case.images, 2):
        images = {**case.images, first: case.images[second], second: case.images[first]}
        yield f"{first} and {second}", replace(case, images=images)


def main() -> None:
    """Print the rates of a folder."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of cases whose files match their names")
    parser.add_argument("--task", default=DEFAULT_TASK, help="task of the cases")
    parser.add_argument("--labels", help="label convention, if the layout does not determine it")
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    options = parser.parse_args()
    found, tried = Counter[str](), Counter[str]()
    for files in find_cases(options.source, read_task(options.task), labels=options.labels).cases:
        try:
            loaded = load(files)
        except InputError as error:
            print(f"{files.case}: {error}")
            continue
        for case, words in ((loaded, ""), (replace(loaded, label=None), ", no segmentation")):
            if words and loaded.label is None:
                continue
            for name, odd in (("as they are", case), *exchanges(case)):
                tried[name + words] += 1
                found[name + words] += any(True for _ in contrasts(odd))
    for name, number in tried.items():
        print(f"{name}: {found[name]} of {number}")
    if options.json:
        total = tried["as they are"]
        print(json.dumps({"ratio": found["as they are"] / total, "found": found, "tried": tried}))


if __name__ == "__main__":
    main()
