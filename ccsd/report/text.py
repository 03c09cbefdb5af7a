"""The scores of a study as plain text for a terminal or a log."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from ccsd.report.overview import FEWEST_CASES, Row, differences, is_clear, overview
from ccsd.report.sentences import counted
from preprocess.modalities import REGIONS


def overview_text(summary: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """Return mean Dice by experiment and number of sequences, and what the experiments differ by."""
    lines = overview(summary)
    header = ("sequences", "experiment", "seeds", *REGIONS)
    rows = [
        (line.sequences, line.experiment, str(line.seeds), *(_mean(line.regions.get(r)) for r in REGIONS))
        for line in lines
    ]
    cases = max((int(row["cases"]) for line in lines for row in line.regions.values()), default=0)
    blocks = [f"Mean Dice over {counted(cases, 'case')} (95 % interval)", *_table(header, rows)]
    found = differences(comparison, "overall")
    if found:
        title = "Differences of mean Dice over all combinations, paired by case"
        blocks += ["", f"{title} (* the interval excludes 0, on {FEWEST_CASES} cases or more)"]
        pairs = [
            (f"{d.experiment} - {d.baseline}", str(d.cases), *(_difference(d.regions.get(r)) for r in REGIONS))
            for d in found
        ]
        blocks += _table(("difference", "cases", *REGIONS), pairs)
    policies = " or ".join(str(policy) for policy in summary["policy"].unique())
    return "\n".join([*blocks, "", f"Empty regions: {policies}"])


def _mean(row: Row | None) -> str:
    if row is None or math.isnan(row["mean"]):
        return "-"
    interval = "" if math.isnan(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['mean']:.3f}{interval}"


def _difference(row: Row | None) -> str:
    if row is None or math.isnan(row["difference"]):
        return "-"
    interval = "" if math.isnan(row["low"]) else f" ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"{row['difference']:+.3f}{interval}{' *' if is_clear(row) else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
