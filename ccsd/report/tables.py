"""The tables of the report, as plain values for the template."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ccsd.report.certainty import MARKS, certainty, seed_range
from ccsd.report.results import StudyResults
from ccsd.report.statistics import SummaryRows, by_key, leave_one_out, subset_order
from preprocess.task import Task

SummaryRow = dict[str, Any]
"""A row of the summary or of the comparison."""
OVERALL = ("overall", "all")
SeedMeans = dict[str, dict[str, list[float]]]
"""Experiment -> region -> one mean for each seed."""


@dataclass(frozen=True)
class OverviewRow:
    """One experiment's mean Dice with one number of sequences."""

    sequences: str
    experiment: str
    seeds: int
    regions: dict[str, SummaryRow]
    """Row of the summary by region."""
    first: bool
    """Whether it is the first row of a number of sequences."""
    best: frozenset[str]
    """Regions in which no other experiment has a higher mean."""


@dataclass(frozen=True)
class Difference:
    """How the mean Dice of one experiment differs from another's, by region."""

    experiment: str
    baseline: str
    sequences: str
    cases: int
    regions: dict[str, SummaryRow]
    """Row of the comparison by region."""


def overview(summary: pd.DataFrame, task: Task) -> list[OverviewRow]:
    """Return every experiment's mean Dice by number of sequences, then over all combinations."""
    part = summary[summary["metric"] == "dice"]
    return [line for scope, name in _scopes(part) for line in _lines(part, scope, name, task)]


def differences(comparison: pd.DataFrame, task: Task, *scopes: str) -> list[Difference]:
    """Return the paired differences of Dice in the given scopes (`overall`, `size`, `subset`), if there are any."""
    part = comparison[(comparison["metric"] == "dice") & comparison["scope"].isin(scopes) & (comparison["cases"] > 0)]
    groups = part.groupby(["experiment", "baseline", "scope", "name"], sort=False)
    return [_difference(key, rows, task) for key, rows in groups]


def over_all(task: Task) -> str:
    """Return ` over all combinations`, or nothing if there is only one."""
    if len(task.modalities) == 1:
        return ""
    return (
        " over all combinations"
        if len(task.subset_names) == 2 ** len(task.modalities) - 1
        else " over the combinations"
    )


def sequences(scope: str, name: str, task: Task) -> str:
    """Return what was averaged in words: `FLAIR + T1ce`, `2 sequences`, `all combinations`."""
    if scope == "size":
        return f"{name} sequence{'s' * (name != '1')}"
    if (scope, name) == OVERALL:
        return over_all(task).removeprefix(" over ") or task.display_name(task.full_name)
    return task.display_name(name)


def seed_means(metrics: pd.DataFrame, task: Task) -> SeedMeans:
    """Return each experiment's mean Dice over cases and combinations, by region, for every training seed.

    An ensemble, which has no seed of its own, has one mean; label maps scored without a model have none.
    """
    found: SeedMeans = {}
    for experiment, part in metrics.dropna(subset="model_hash").groupby("experiment", sort=False):
        seeds = part["seed"].where(part["seed"].notna(), -1)
        means = part.assign(seed=seeds).groupby(["region", "seed", "subset"])["dice"].mean()
        means = means.groupby(level=["region", "seed"]).mean()
        found[str(experiment)] = {
            region: [float(mean) for mean in means.get(region, [])] for region in task.scored_regions
        }
    return found


def _lines(part: pd.DataFrame, scope: str, name: str, task: Task) -> Iterator[OverviewRow]:
    rows = part[(part["scope"] == scope) & (part["name"] == name)]
    top = rows.groupby("region")["mean"].max().to_dict()
    experiments = [str(experiment) for experiment in rows["experiment"].unique()]
    for experiment in experiments:
        regions = _by_region(rows[rows["experiment"] == experiment])
        best = frozenset(r for r, row in regions.items() if row["mean"] == top[r] and len(experiments) > 1)
        seeds = max(int(row["seeds"]) for row in regions.values())
        yield OverviewRow(sequences(scope, name, task), experiment, seeds, regions, experiment == experiments[0], best)


def _by_region(rows: pd.DataFrame) -> dict[str, SummaryRow]:
    return {str(row["region"]): {str(k): v for k, v in row.items()} for _, row in rows.iterrows()}


def _scopes(summary: pd.DataFrame) -> list[tuple[str, str]]:
    kinds = summary.loc[summary["scope"].isin(["size", "overall"]), ["scope", "name"]].drop_duplicates()
    found = [(str(scope), str(name)) for scope, name in kinds.itertuples(index=False)]
    return sorted(found, key=lambda kind: (kind[0] == "overall", 0 if kind[0] == "overall" else int(kind[1])))


def _difference(key: Any, rows: pd.DataFrame, task: Task) -> Difference:
    experiment, baseline, scope, name = (str(part) for part in key)
    return Difference(experiment, baseline, sequences(scope, name, task), int(rows["cases"].max()), _by_region(rows))


Shown = tuple[tuple[str, int, str], ...]
"""Metrics of a table: column of the summary, digits, heading."""
MAIN: Shown = (("dice", 3, "Dice"), ("hd95", 1, "HD95"))
MORE: Shown = (
    ("nsd", 3, "NSD"),
    ("lesion_dice", 3, "Lesion Dice"),
    ("lesion_hd95", 1, "Lesion HD95"),
)
CLEANED: Shown = (("dice_clean", 3, "Dice cleaned"),)
"""Shown after `MORE` if something was cleaned."""
DICE_DIGITS = 3
HD95_SCALE_MM = 50.0
"""Distances from this one on have the darkest colour."""
WORST_ROWS = 8
_DARK = 0.5


@dataclass(frozen=True)
class Cell:
    """A number with its interval and its colour."""

    text: str
    sort: float
    interval: str = ""
    background: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Gap:
    """A difference with its interval and its corrected p."""

    text: str
    sort: float
    interval: str = ""
    p: str = ""
    p_sort: float = float("nan")
    mark: str = ""
    """One of `MARKS`."""
    seeds: str = ""
    """The range over seeds."""


@dataclass(frozen=True)
class ScoreTableRow:
    """One row of scores."""

    name: str
    has: list[bool]
    """Which of the sequences it has, in the order of the task."""
    cells: list[Cell]
    missed: int
    total: bool = False


def score_table(summary: pd.DataFrame, experiment: str, shown: Shown, task: Task) -> list[ScoreTableRow]:
    """Return the scores of the regions for each combination, then the averages."""
    part = summary[summary["experiment"] == experiment]
    rows = by_key(part)
    names = subset_order(part.loc[part["scope"] == "subset", "name"].unique(), task)
    keys = [("subset", name) for name in names] + [("overall", "all")] * (len(names) > 1)
    return [_row(rows, shown, (experiment, scope, name), task) for scope, name in keys]


def columns(shown: Shown, task: Task) -> list[str]:
    """Return the headings of the score table after the name."""
    return [f"{heading} {region}" for _, _, heading in shown for region in task.scored_regions]


def drop_table(summary: pd.DataFrame, experiment: str, task: Task) -> list[tuple[str, list[Cell]]]:
    """Return how the mean Dice of each region changes without each sequence, compared with the full set."""
    rows = by_key(summary)
    drops = [leave_one_out(rows, experiment, region, task) for region in task.scored_regions]
    names = {m: shown for m, shown in task.sequences.items() if any(m in found for found in drops)}
    return [(shown, [_drop_cell(found.get(m)) for found in drops]) for m, shown in names.items()]


def worst_cases(study: StudyResults, experiment: str) -> list[dict[str, Any]]:
    """Return the cases with the lowest mean Dice under the largest combination that was evaluated."""
    part = study.metrics[study.metrics["experiment"] == experiment]
    regions = list(study.task.scored_regions)
    name = subset_order(part["subset"].unique(), study.task)[-1]
    part = part[part["subset"] == name]
    wide = part.pivot_table(index="case", columns="region", values="dice", aggfunc="mean").reindex(columns=regions)
    order = wide.mean(axis=1).sort_values().index[:WORST_ROWS]
    volumes = part[part["region"] == regions[0]].groupby("case")["reference_mm3"].first()
    return [
        {
            "case": case,
            "dice": [_dice_cell(wide.loc[case, r]) for r in regions],
            "volume": f"{volumes[case] / 1000:.1f}",
        }
        for case in order
    ]


def removal_paths(events: list[dict[str, Any]], task: Task) -> list[tuple[str, float]]:
    """Return the most frequent orders of removal in the last event, with their shares."""
    paths = dict(events[-1].get("paths") or {}) if events else {}
    ranked = sorted(paths.items(), key=lambda item: -float(item[1]))[:5]
    return [(" then ".join(task.sequences.get(m, m) for m in path.split(">")), float(share)) for path, share in ranked]


def overview_rows(summary: pd.DataFrame, task: Task) -> list[tuple[OverviewRow, list[Cell]]]:
    """Return the experiments' mean Dice by number of sequences, one cell per region."""
    return [
        (line, [_score_cell(line.regions.get(r), DICE_DIGITS) for r in task.scored_regions])
        for line in overview(summary, task)
    ]


def difference_rows(comparison: pd.DataFrame, task: Task, *scopes: str) -> list[tuple[Difference, list[Gap]]]:
    """Return the differences between experiments in some scopes, one cell per region."""
    found = differences(comparison, task, *scopes)
    return [(difference, [_gap(difference.regions.get(r)) for r in task.scored_regions]) for difference in found]


def _row(rows: SummaryRows, shown: Shown, key: tuple[str, str, str], task: Task) -> ScoreTableRow:
    _, scope, name = key
    regions = task.scored_regions
    cells = [_score_cell(rows.get((*key, region, metric)), digits) for metric, digits, _ in shown for region in regions]
    missed = sum(int(rows[(*key, region, "dice")]["missed"]) for region in regions if (*key, region, "dice") in rows)
    parts = name.split("+") if task.is_subset(name) else []
    label = "Average" if scope == "overall" else task.display_name(name)
    return ScoreTableRow(label, [m in parts for m in task.modalities], cells, missed, scope == "overall")


def _score_cell(row: dict[str, Any] | None, digits: int) -> Cell:
    if row is None or pd.isna(row["mean"]):
        return Cell("-", float("nan"))
    coarse = max(1, digits - 1)
    interval = "" if pd.isna(row["low"]) else f"{row['low']:.{coarse}f} to {row['high']:.{coarse}f}"
    mean = float(row["mean"])
    good = 1 - mean / HD95_SCALE_MM if "hd95" in row["metric"] else mean
    background, ink = colour(good)
    return Cell(f"{mean:.{digits}f}", mean, interval, background, ink)


def _dice_cell(mean: float) -> Cell:
    if math.isnan(mean):
        return Cell("-", float("nan"))
    return Cell(f"{mean:.3f}", mean, "", *colour(mean))


def _drop_cell(drop: float | None) -> Cell:
    if drop is None:
        return Cell("-", float("nan"))
    return Cell(f"{drop:+z.3f}", drop, "", *colour(1 + 2 * min(drop, 0)))


def colour(good: float) -> tuple[str, str]:
    """Return background and ink for a score from 0 (bad) to 1, on a scale that is safe for the colour-blind."""
    red, green, blue, _ = colormaps["cividis"](float(min(max(good, 0), 1)))  # a whole number would be an index
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return to_hex((red, green, blue)), "#000" if luminance > _DARK else "#fff"


def _gap(row: dict[str, Any] | None) -> Gap:
    if row is None or math.isnan(row["difference"]):
        return Gap("-", float("nan"))
    interval = "" if math.isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
    p, seeds = row["p_holm"], seed_range(row)
    by_seed = "" if seeds is None else f"seeds {seeds[0]:+.3f} to {seeds[1]:+.3f}"
    return Gap(f"{row['difference']:+.3f}", row["difference"], interval, _p(p), p, MARKS[certainty(row)], by_seed)


def _p(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - as journals print it
