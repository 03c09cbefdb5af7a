"""The report in sentences: the summary of a study, which experiment is better, and the text for a terminal."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from ccsd.report.certainty import FEWEST_CASES, MARKS, Certainty, certainty, comparable, seed_range
from ccsd.report.results import StudyResults
from ccsd.report.statistics import SummaryRows, by_key, leave_one_out
from ccsd.report.tables import Difference, SummaryRow, differences, over_all, overview
from preprocess.errors import counted
from preprocess.task import Task

_NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}
NOTEWORTHY = 0.01
"""A smaller change of the mean Dice is not worth a sentence."""


def summary_sentences(study: StudyResults, summary: pd.DataFrame, best: str, verdicts: Iterable[str] = ()) -> list[str]:
    """Return what a reader should know first: verdicts on several experiments, and the numbers of the best one."""
    rows = by_key(summary)
    names = [str(name) for name in summary["experiment"].unique()]
    subsets = study.metrics["subset"].nunique()
    about_best = _scores_of(rows, best, study.task, several=len(names) > 1, subsets=subsets)
    return [*_scope(study, names), *verdicts, *about_best]


def best_experiment(summary: pd.DataFrame, metrics: pd.DataFrame) -> str:
    """Return the experiment with the highest mean Dice over all combinations and regions.

    Only experiments scored on the most cases are considered: means over fewer cases, such as a fixed test set, do not
    compare.
    """
    cases = metrics.groupby("experiment")["case"].nunique()
    most = cases.index[cases == cases.max()]
    part = summary[(summary["scope"] == "overall") & (summary["metric"] == "dice") & summary["experiment"].isin(most)]
    means = part.groupby("experiment", sort=False)["mean"].mean().fillna(0)
    return str(means.idxmax())


def region_words(task: Task) -> str:
    """Return what the regions are: `WT is the whole tumour, TC the tumour core`."""
    named = [name for name in task.scored_regions if task.word(name) != name]
    return ", ".join(f"{name} {'is ' * (name == named[0])}the {task.word(name)}" for name in named)


def lesion_words(task: Task) -> str:
    """Return a sentence on how lesions are scored."""
    rule = task.lesions
    penalty = "the diagonal of the image" if rule.penalty_mm == "diagonal" else f"{rule.penalty_mm:g} mm"
    missed = "missed and false-positive ones score" if rule.count_false else "a missed one scores"
    return (
        f"Lesion scores follow the rule of the task {task.name}: every lesion has the same weight, {missed} a Dice "
        f"of 0 and an HD95 of {penalty}."
    )


def cleanup_words(task: Task) -> str:
    """Return a sentence on what the clean-up does; nothing for a task without one."""
    rules = [
        f"less {task.word(name)} ({name}) than {rule.below_mm3:g} mm3 in a case counts as {task.word(rule.becomes)}"
        for name, rule in task.cleanup.items()
    ]
    return f"Dice cleaned: {listed(rules)}." if rules else ""


def with_interval(row: dict[str, Any], digits: int = 2) -> str:
    """Return `0.85 (0.80 to 0.89)`, or only `0.85` if there is no interval."""
    text = f"{row['mean']:.{digits}f}"
    if not math.isnan(row["low"]):
        text += f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})"
    return text


def listed(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _scope(study: StudyResults, experiments: list[str]) -> Iterator[str]:
    cases, subsets = study.metrics["case"].nunique(), study.metrics["subset"].nunique()
    trained = f"{len(experiments)} experiments ({', '.join(experiments)})" if len(experiments) > 1 else "one experiment"
    was = "was" if cases == 1 else "were"
    yield f"{counted(cases, 'held-out case')} {was} segmented from {_what(study.task, subsets)}, by {trained}."
    in_folds = study.metrics.dropna(subset=["fold", "model_hash"])  # for adopted label maps, this is unknown
    if len(in_folds):
        folds, own = sorted(in_folds["fold"].unique()), int(in_folds["case"].nunique())
        which = "Each" if own == cases else f"Each of {own} of them"
        yield (
            f"{which} was held out by one of the folds {listed([str(fold) for fold in folds])} and scored only with "
            "models of that fold."
        )


def _what(task: Task, subsets: int) -> str:
    if len(task.modalities) == 1:
        return task.display_name(task.full_name)
    every = f"every one of the {subsets}" if _is_all(task, subsets) else f"{subsets}"
    return f"{every} {'combination' if subsets == 1 else 'combinations'} of sequences"


def _is_all(task: Task, subsets: int) -> bool:
    return subsets == (1 << len(task.modalities)) - 1


def _all_sequences(task: Task) -> str:
    count = len(task.modalities)
    if count == 1:
        return task.display_name(task.full_name)
    return "both sequences" if count == 2 else f"all {_NUMBERS.get(count, str(count))} sequences"  # noqa: PLR2004


def _scores_of(rows: SummaryRows, experiment: str, task: Task, *, several: bool, subsets: int) -> Iterator[str]:
    start = f"{experiment}: with" if several else "With"
    regions = task.scored_regions
    full = [rows.get((experiment, "subset", task.full_name, region, "dice")) for region in regions]
    if all(full):
        parts = [f"{with_interval(row)} for {task.word(r)}" for r, row in zip(regions, full, strict=True) if row]
        yield f"{start} {_all_sequences(task)} the mean Dice is {listed(parts)}."
    overall = [rows.get((experiment, "overall", "all", region, "dice")) for region in regions]
    if subsets > 1 and all(overall):
        parts = [f"{with_interval(row)} ({r})" for r, row in zip(regions, overall, strict=True) if row]
        subject = "it" if all(full) else "the mean Dice"
        every = "all combinations" if _is_all(task, subsets) else f"these {subsets} combinations"
        yield f"Averaged over {every} {subject} is {listed(parts)}."
    yield from _removal(rows, experiment, task)


def _removal(rows: SummaryRows, experiment: str, task: Task) -> Iterator[str]:
    for region in task.scored_regions:
        drops = leave_one_out(rows, experiment, region, task)
        if not drops:
            continue
        worst = min(drops, key=lambda name: drops[name])
        if drops[worst] < -NOTEWORTHY:
            yield (
                f"For the {task.word(region)}, {task.sequences[worst]} matters most: without it, the mean Dice falls "
                f"by {-drops[worst]:.2f}."
            )


def verdicts(summary: pd.DataFrame, comparison: pd.DataFrame, task: Task) -> Iterator[str]:
    """Yield a sentence for each region: which experiment is best, by how much, and whether clearly.

    Experiments without a case in common are judged separately.

    Parameters
    ----------
    summary, comparison
        As `summarise` and `compare` return them.
    task
        The task of the scores.
    """
    rows, found = by_key(summary), differences(comparison, task, "overall")
    for region in task.scored_regions:
        keys = [(str(experiment), "overall", "all", region, "dice") for experiment in summary["experiment"].unique()]
        means = {key[0]: float(rows[key]["mean"]) for key in keys if key in rows and not math.isnan(rows[key]["mean"])}
        groups = comparable(list(means), _pairs(found, region))
        for group in (group for group in groups if len(group) > 1):
            # By pairs, because means over different cases do not compare.
            best = max(group, key=lambda name: (_least(name, region, found), means[name]))
            among = f"Of {listed(group)}, a" if len(groups) > 1 else "A"
            start = f"{among}veraged{over_all(task)}, " if over_all(task) else ""
            yield (
                f"{start}{best} segments the {task.word(region)} best, with a mean Dice of {means[best]:.3f}: "
                f"{_against(_rivals(best, region, found))}."
            )


def _pairs(found: Iterable[Difference], region: str) -> list[tuple[str, str]]:
    """Return the pairs of experiments that have a case in common."""
    return [
        (pair.experiment, pair.baseline)
        for pair in found
        if region in pair.regions and not math.isnan(pair.regions[region]["difference"])
    ]


def _least(name: str, region: str, found: Iterable[Difference]) -> float:
    """Return by how much an experiment is better than its closest rival, over the cases of both."""
    own = [pair for pair in found if name in (pair.experiment, pair.baseline) and region in pair.regions]
    gaps = [pair.regions[region]["difference"] * (1 if name == pair.experiment else -1) for pair in own]
    return min((gap for gap in gaps if not math.isnan(gap)), default=-math.inf)


_BETTER: dict[Certainty, tuple[str, str]] = {
    "clear": ("clearly better than", ""),
    "one seed": ("better for these cases than", ", with other seeds not tried"),
    "unclear": ("not clearly better than", ""),
}


def _against(rivals: Iterable[tuple[str, Certainty]]) -> str:
    by_kind: dict[Certainty, list[str]] = {}
    for text, kind in rivals:
        by_kind.setdefault(kind, []).append(text)
    return "; ".join(
        f"{before} {listed(by_kind[kind])}{after}" for kind, (before, after) in _BETTER.items() if kind in by_kind
    )


def _rivals(best: str, region: str, found: list[Difference]) -> Iterator[tuple[str, Certainty]]:
    """Yield for every other experiment how much better the best one is, and how certain that is."""
    for pair in found:
        if best not in (pair.experiment, pair.baseline) or region not in pair.regions:
            continue
        row = pair.regions[region]
        if math.isnan(row["difference"]):
            continue
        sign, other = (1, pair.baseline) if best == pair.experiment else (-1, pair.experiment)
        difference, low, high = (sign * row[name] + 0.0 for name in ("difference", "low", "high"))  # no -0.000
        low, high = min(low, high), max(low, high)
        notes = [] if math.isnan(low) else [f"{low:.3f} to {high:.3f}"]
        if seeds := seed_range(row):
            least, most = sorted(sign * end + 0.0 for end in seeds)
            notes.append(f"by seed {least:.3f} to {most:.3f}" + ", though their seeds overlap" * (least <= 0))
        yield (
            f"{other} by {difference:.3f}" + (f" ({'; '.join(notes)})" if notes else ""),
            (certainty(row) if difference > 0 else "unclear"),
        )


def overview_text(summary: pd.DataFrame, comparison: pd.DataFrame, task: Task) -> str:
    """Return mean Dice by experiment and number of sequences, and the differences between experiments."""
    lines, regions = overview(summary, task), task.scored_regions
    header = ("sequences", "experiment", "seeds", *regions)
    rows = [
        (line.sequences, line.experiment, str(line.seeds), *(_mean_text(line.regions.get(r)) for r in regions))
        for line in lines
    ]
    cases = max((int(row["cases"]) for line in lines for row in line.regions.values()), default=0)
    blocks = [f"Mean Dice over {counted(cases, 'case')} (95 % interval)", *_table(header, rows)]
    found = differences(comparison, task, "overall")
    if found:
        title = f"Differences of mean Dice{over_all(task)}, paired by case"
        blocks += ["", title, f"* the interval excludes 0, on {FEWEST_CASES} cases or more, as all seeds do"]
        blocks.append("(*) the interval excludes 0, with other seeds not tried")
        blocks += _table(
            ("difference", "cases", *regions), [row for pair in found for row in _pair_rows(pair, regions)]
        )
    return "\n".join(blocks)


def _mean_text(row: SummaryRow | None) -> str:
    if row is None or math.isnan(row["mean"]):
        return "-"
    interval = "" if math.isnan(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['mean']:.3f}{interval}"


def _pair_rows(pair: Difference, regions: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield the differences of two experiments, and below them their ranges over seeds."""
    rows = [pair.regions.get(region) for region in regions]
    yield f"{pair.experiment} - {pair.baseline}", str(pair.cases), *(_difference_text(row) for row in rows)
    ranges = [row and seed_range(row) for row in rows]
    if any(ranges):
        yield "  by seed", "", *(f"{found[0]:+.3f} to {found[1]:+.3f}" if found else "-" for found in ranges)


def _difference_text(row: SummaryRow | None) -> str:
    if row is None or math.isnan(row["difference"]):
        return "-"
    interval = "" if math.isnan(row["low"]) else f" ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"{row['difference']:+.3f}{interval} {MARKS[certainty(row)]}".rstrip()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
