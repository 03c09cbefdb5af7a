"""Sentences on which experiment is better than which, and how sure that is."""

import math
from collections.abc import Iterator

import pandas as pd

from ccsd.report.overview import Difference, SeedMeans, differences, is_clear
from ccsd.report.sentences import NAMES, by_key, listed
from preprocess.modalities import REGIONS


def verdicts(summary: pd.DataFrame, comparison: pd.DataFrame, seeds: SeedMeans) -> Iterator[str]:
    """Yield a sentence for each region: which experiment is best, by how much, and than which it is clearly better.

    Parameters
    ----------
    summary, comparison
        As `summarise` and `compare` return them.
    seeds
        As `seed_means` returns them; where a seed of the worse experiment is as good, the sentence says so.
    """
    rows, found = by_key(summary), differences(comparison, "overall")
    for region in REGIONS:
        keys = [(str(experiment), "overall", "all", region, "dice") for experiment in summary["experiment"].unique()]
        means = {key[0]: float(rows[key]["mean"]) for key in keys if key in rows and not math.isnan(rows[key]["mean"])}
        if len(means) < 2:  # noqa: PLR2004 - a single one has no rival
            continue
        best = max(means, key=lambda name: means[name])
        rivals = list(_rivals(best, region, found, seeds))
        if not rivals:  # no case in common
            continue
        sure, unsure = ([text for text, clear in rivals if clear is wanted] for wanted in (True, False))
        parts = [f"better than {listed(sure)}"] if sure else []
        parts += [f"not clearly better than {listed(unsure)}"] if unsure else []
        yield (
            f"Averaged over all combinations, {best} segments the {NAMES[region]} best, with a mean Dice of "
            f"{means[best]:.3f}: {'; '.join(parts)}."
        )


def _rivals(best: str, region: str, found: list[Difference], seeds: SeedMeans) -> Iterator[tuple[str, bool]]:
    """Yield for every other experiment by how much the best one is better, and whether the interval excludes 0."""
    for pair in found:
        if best not in (pair.experiment, pair.baseline) or region not in pair.regions:
            continue
        row = pair.regions[region]
        if math.isnan(row["difference"]):
            continue
        sign, other = (1, pair.baseline) if best == pair.experiment else (-1, pair.experiment)
        low, high = sorted((sign * row["low"], sign * row["high"]))
        notes = [] if math.isnan(low) else [f"{low:.3f} to {high:.3f}"]
        if _overlap(seeds.get(best, {}).get(region, []), seeds.get(other, {}).get(region, [])):
            notes.append("though their seeds overlap")
        yield f"{other} by {sign * row['difference']:.3f}" + (f" ({', '.join(notes)})" if notes else ""), is_clear(row)


def _overlap(better: list[float], worse: list[float]) -> bool:
    """Whether a seed of the worse experiment is as good as one of the better; false for one seed against one."""
    return len(better) + len(worse) > 2 and min(better) <= max(worse)  # noqa: PLR2004 - one seed each
