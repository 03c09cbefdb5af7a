"""The tables of the report as plain values that the template prints."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ccsd.report.overview import Difference, Line, differences, is_clear, overview
from ccsd.report.sentences import SHOWN, Rows, by_key, display, leave_one_out
from ccsd.report.statistics import subset_order
from ccsd.report.study import Study
from preprocess.modalities import MODALITIES, REGIONS, SUBSET_ORDER

Shown = tuple[tuple[str, int, str], ...]
"""Metrics of a table: column of the summary, digits, heading."""
MAIN: Shown = (("dice", 3, "Dice"), ("hd95", 1, "HD95"))
MORE: Shown = (
    ("nsd", 3, "NSD"),
    ("lesion_dice", 3, "Lesion Dice"),
    ("lesion_hd95", 1, "Lesion HD95"),
    ("dice_clean", 3, "Dice cleaned"),
)
DICE_DIGITS = 3
HD95_SCALE_MM = 50.0
"""Distances from here on have the darkest colour."""
WORST_ROWS = 8
_DARK = 0.5


@dataclass(frozen=True)
class Cell:
    """A number with its interval and the colour that stands for it."""

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
    clear: bool = False


@dataclass(frozen=True)
class Row:
    """One row of scores."""

    name: str
    has: list[bool]
    """Which of the four sequences it has, in their order."""
    cells: list[Cell]
    missed: int
    total: bool = False


def score_table(summary: pd.DataFrame, experiment: str, shown: Shown) -> list[Row]:
    """Return the scores of the three regions for each combination, then the averages."""
    part = summary[summary["experiment"] == experiment]
    rows = by_key(part)
    names = subset_order(part.loc[part["scope"] == "subset", "name"].unique())
    keys = [("subset", name) for name in names] + [("overall", "all")] * (len(names) > 1)
    return [_row(rows, shown, (experiment, scope, name)) for scope, name in keys]


def columns(shown: Shown) -> list[str]:
    """Return the headings of the score table after the name."""
    return [f"{heading} {region}" for _, _, heading in shown for region in REGIONS]


def drop_table(summary: pd.DataFrame, experiment: str) -> list[tuple[str, list[Cell]]]:
    """Return how much mean Dice each region loses without each sequence, full set against the other three."""
    rows = by_key(summary)
    drops = {region: leave_one_out(rows, experiment, region) for region in REGIONS}
    names = [m for m in MODALITIES if any(m in found for found in drops.values())]
    return [(SHOWN[m], [_drop_cell(drops[region].get(m)) for region in REGIONS]) for m in names]


def worst_cases(study: Study, experiment: str) -> list[dict[str, Any]]:
    """Return the cases with the lowest mean Dice under the largest combination that was evaluated."""
    part = study.metrics[study.metrics["experiment"] == experiment]
    name = subset_order(part["subset"].unique())[-1]
    part = part[part["subset"] == name]
    wide = part.pivot_table(index="case", columns="region", values="dice", aggfunc="mean").reindex(
        columns=list(REGIONS)
    )
    order = wide.mean(axis=1).sort_values().index[:WORST_ROWS]
    volumes = part[part["region"] == "WT"].groupby("case")["reference_mm3"].first()
    return [
        {
            "case": case,
            "dice": [_dice_cell(wide.loc[case, r]) for r in REGIONS],
            "volume": f"{volumes[case] / 1000:.1f}",
        }
        for case in order
    ]


def removal_paths(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return the orders of removal that were most frequent in the last event, with their shares."""
    paths = dict(events[-1].get("paths") or {}) if events else {}
    ranked = sorted(paths.items(), key=lambda item: -float(item[1]))[:5]
    return [(" then ".join(SHOWN.get(m, m) for m in path.split(">")), float(share)) for path, share in ranked]


def overview_rows(summary: pd.DataFrame) -> list[tuple[Line, list[Cell]]]:
    """Return the experiments' mean Dice by number of sequences, one cell per region."""
    return [(line, [_score_cell(line.regions.get(r), DICE_DIGITS) for r in REGIONS]) for line in overview(summary)]


def difference_rows(comparison: pd.DataFrame, *scopes: str) -> list[tuple[Difference, list[Gap]]]:
    """Return the differences between experiments in some scopes, one cell per region."""
    found = differences(comparison, *scopes)
    return [(difference, [_gap(difference.regions.get(r)) for r in REGIONS]) for difference in found]


def _row(rows: Rows, shown: Shown, key: tuple[str, str, str]) -> Row:
    _, scope, name = key
    cells = [_score_cell(rows.get((*key, region, metric)), digits) for metric, digits, _ in shown for region in REGIONS]
    missed = sum(int(rows[(*key, region, "dice")]["missed"]) for region in REGIONS if (*key, region, "dice") in rows)
    parts = name.split("+") if name in SUBSET_ORDER else []
    label = "Average" if scope == "overall" else display(name)
    return Row(label, [m in parts for m in MODALITIES], cells, missed, scope == "overall")


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
    return Cell(f"{drop:+.3f}", drop, "", *colour(1 + 2 * min(drop, 0)))


def colour(good: float) -> tuple[str, str]:
    """Return background and ink for a score from 0 (bad) to 1, on a scale that is safe for the colour-blind."""
    red, green, blue, _ = colormaps["cividis"](float(min(max(good, 0), 1)))  # a whole number would be an index
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return to_hex((red, green, blue)), "#000" if luminance > _DARK else "#fff"


def _gap(row: dict[str, Any] | None) -> Gap:
    if row is None or math.isnan(row["difference"]):
        return Gap("-", float("nan"))
    interval = "" if math.isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"
    p = row["p_holm"]
    return Gap(f"{row['difference']:+.3f}", row["difference"], interval, _p(p), p, is_clear(row))


def _p(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 - as journals print it
