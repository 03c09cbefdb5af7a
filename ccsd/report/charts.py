"""The figures of the report, as inline SVG with the font and colours of the page."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ccsd.report.results import TrainingResults
from ccsd.report.sentences import listed
from ccsd.report.statistics import case_matrix, subset_order
from preprocess.task import Task

COLOURS = {
    "#010203": "currentColor",
    "#040506": "var(--grid)",
    "#070800": "var(--accent)",
    **{f"#07080{number}": f"var(--series-{number})" for number in range(1, 9)},
}
"""Colours that figures are drawn in -> their names in the page's style sheet."""
TEXT, GRID, ACCENT, *SERIES = COLOURS
MARKERS, LINES = "os^Dvx*P", ("-", "--", "-.", ":")
"""Used with the colours, so that series can be distinguished without seeing colours."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of experiments and cases are not formulas
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


@contextmanager
def figure(width: float, height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """Yield an empty figure (inches) and its axes, in the style of the page."""
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing, drawing.subplots(**subplots)


def inline(drawing: Figure, name: str, description: str) -> Markup:
    """Return a figure as SVG markup; screen readers read `description`.

    `name` makes the ids in the figure different from those of all other figures of the page.
    """
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        drawing.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for drawn, wanted in COLOURS.items():
        svg = svg.replace(drawn, wanted)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    used = set(re.findall(r"#([\w.-]+)", svg))  # ids like axes_1 are in every figure, and unused
    svg = re.sub(r' id="([\w.-]+)"', lambda found: found.group(0) if found.group(1) in used else "", svg)
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    limit = f"{float(width.group(1)) * 4 / 3:.0f}px" if width else "100%"
    label = escape(description, quote=True)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width:{limit}"', 1))  # noqa: S704 - drawn here, texts escaped by matplotlib


LOSSES = {
    "supervised": (SERIES[0], "-"),
    "hmsd": (SERIES[1], "--"),
    "dmcd": (SERIES[2], "-."),
    "shared": (SERIES[3], ":"),
    "specific": (TEXT, ":"),
}
_SMOOTH_POINTS = 100
_MANY_POINTS = 40
_SIDE_BY_SIDE = 4
_IN_LEGEND = 8
_APART = 0.4
"""How far the experiments of one number of sequences are spread along the axis, as part of a step."""
_TICKS_MM = (0, 1, 3, 10, 30, 100, 300)


def by_size(summary: pd.DataFrame, metrics: pd.DataFrame, experiment: str, task: Task) -> Markup | None:
    """Draw mean Dice and HD95 against the number of sequences, with 95 % intervals and a thin line for each seed."""
    part = summary[(summary["experiment"] == experiment) & (summary["scope"] == "size")]
    if part["name"].nunique() < 2:  # noqa: PLR2004 - one number is not a curve
        return None
    with figure(10, 3.6, ncols=2) as (drawing, axes):
        for axis, (metric, label) in zip(axes, (("dice", "Dice"), ("hd95", "HD95 in mm, logarithmic")), strict=True):
            for place, region in enumerate(task.scored_regions):
                rows = part[(part["metric"] == metric) & (part["region"] == region)]
                shift = (place - (len(task.scored_regions) - 1) / 2) * 0.05
                _seed_lines(axis, metrics, (experiment, region, metric), shift, _region_style(place))
                _interval_line(axis, rows, shift, _region_style(place), region)
            axis.set(xlabel="sequences available", ylabel=label, xticks=_sizes(task))
            if metric == "dice":
                axis.set_ylim(0, 1)
            else:
                axis.set_yscale("symlog", linthresh=1)  # penalties would flatten everything else
                axis.set_yticks(_TICKS_MM, [str(tick) for tick in _TICKS_MM])
                worst = np.nanmax(part.loc[part["metric"] == metric, ["mean", "high"]].to_numpy(np.float64))
                axis.set_ylim(0, 1.5 * max(1.0, float(worst)))
        axes[0].legend(loc="best")
        return inline(drawing, f"size-{experiment}", f"{experiment}: {_size_words(part, task)}")


def by_experiment(summary: pd.DataFrame, metrics: pd.DataFrame, task: Task) -> Markup | None:
    """Draw each region's mean Dice against the number of sequences, one line per experiment.

    Each mean has its 95 % interval, and with several seeds, each has a thin line.
    """
    part = summary[(summary["metric"] == "dice") & (summary["scope"] == "size")]
    names = [str(name) for name in part["experiment"].unique()]
    if len(names) < 2:  # noqa: PLR2004 - nothing to compare
        return None
    with _one_each(task, 3.6) as (drawing, axes):
        for axis, region in zip(axes, task.scored_regions, strict=True):
            for place, name in enumerate(names):
                rows = part[(part["region"] == region) & (part["experiment"] == name)]
                shift = (place - (len(names) - 1) / 2) * _APART / len(names)
                _seed_lines(axis, metrics, (name, region, "dice"), shift, _style(place))
                _interval_line(axis, rows, shift, _style(place), name)
            axis.set(title=_title(task.word(region)), xlabel="sequences available", xticks=_sizes(task))
        axes[0].set_ylabel("Dice")
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(names)))
        words = " ".join(f"{name}: {_size_words(part[part['experiment'] == name], task)}" for name in names)
        return inline(drawing, "experiments", words)


def distributions(metrics: pd.DataFrame, experiment: str, task: Task) -> Markup:
    """Draw each case's Dice for each combination: median, quartiles and every case."""
    part = metrics[metrics["experiment"] == experiment]
    wides = {region: case_matrix(part[part["region"] == region], "dice", task) for region in task.scored_regions}
    names = subset_order(part["subset"].unique(), task)
    with _one_each(task, 0.8 + 0.27 * len(names)) as (drawing, axes):
        for place, (axis, (region, wide)) in enumerate(zip(axes, wides.items(), strict=True)):
            _spread(axis, wide, SERIES[place % len(SERIES)])
            axis.set(xlabel=f"{region} Dice", xlim=(-0.03, 1.03))
        axes[0].set_yticks(range(len(names)), [task.display_name(name) for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first row on top, with space for its dots
        return inline(
            drawing,
            f"spread-{experiment}",
            f"{experiment}: Dice of every case, one row per combination, with quartiles and median, for "
            f"{listed(list(task.scored_regions))}.",
        )


def expectations(scores: pd.DataFrame, experiment: str, task: Task) -> Markup:
    """Draw each segmentation's Dice against the expected one, coloured by the number of sequences."""
    sizes = sorted(int(size) for size in scores["modalities"].unique())
    with _one_each(task, 3.2) as (drawing, axes):
        for axis, region in zip(axes, task.scored_regions, strict=True):
            if region not in task.regions:  # scored, but not an output of a model, so nothing is expected
                axis.set_axis_off()
                continue
            axis.plot([0, 1], [0, 1], color=TEXT, lw=1)
            for size in sizes:
                part = scores[(scores["region"] == region) & (scores["modalities"] == size)]
                colour = SERIES[(size - 1) % len(SERIES)]
                axis.plot(part["expected"], part["dice"], ".", color=colour, ms=4, alpha=0.55, label=f"{size} given")
            axis.set(title=_title(task.word(region)), xlabel="expected Dice", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes[0].set_ylabel("Dice")
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(sizes)))
        return inline(
            drawing,
            f"expected-{experiment}",
            f"{experiment}: Dice of every segmentation against the expected Dice, for "
            f"{listed(list(task.regions))}; the table has the numbers.",
        )


def training(run: TrainingResults, task: Task) -> Markup | None:
    """Draw the losses and the validation Dice against the step."""
    steps, checks = run.of_kind("train"), run.of_kind("validation")
    if not steps:
        return None
    with figure(10, 3.2, ncols=2) as (drawing, axes):
        _losses(axes[0], steps)
        _validation(axes[1], checks, task)
        return inline(drawing, f"training-{run.name}", _training_words(run.name, steps, checks))


def removals(run: TrainingResults, task: Task) -> Markup | None:
    """Draw which sequence DMCD removed first against the step."""
    events = [event for event in run.of_kind("removal") if isinstance(event.get("first"), dict)]
    if not events:
        return None
    x = [event["step"] for event in events]
    shares = {m: [float(event["first"].get(m, 0)) for event in events] for m in task.modalities}
    with figure(10, 2.8) as (drawing, axis):
        for place, (name, values) in enumerate(shares.items()):
            axis.plot(
                x,
                values,
                color=SERIES[place % len(SERIES)],
                ls=LINES[place // len(SERIES)],
                marker="o" if len(x) < _MANY_POINTS else None,
                ms=3,
                label=task.sequences[name],
            )
        axis.set(ylabel="share removed first", ylim=(-0.02, 1.02))
        _against_steps(axis)
        drawing.legend(ncols=min(_IN_LEGEND, len(shares)), loc="outside upper center")
        last = ", ".join(f"{task.sequences[name]} {values[-1]:.0%}" for name, values in shares.items())
        return inline(
            drawing, f"removal-{run.name}", f"{run.name}: sequence that DMCD removed first; at the end {last}."
        )


def _style(place: int) -> dict[str, Any]:
    """Return a combination of colour, line and marker that is unique among two dozen experiments."""
    colours = (*SERIES[:4], TEXT)
    return {
        "color": colours[place % len(colours)],
        "marker": MARKERS[place % 6],
        "ls": LINES[place // len(colours) % len(LINES)],
    }


def _region_style(place: int) -> dict[str, Any]:
    return {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}


@contextmanager
def _one_each(task: Task, height: float) -> Iterator[tuple[Figure, list[Any]]]:
    """Yield a figure and one axis for each region, in rows of at most four, each row of a height in inches."""
    count = len(task.scored_regions)
    rows = math.ceil(count / _SIDE_BY_SIDE)
    columns = math.ceil(count / rows)
    with figure(10, height * rows, nrows=rows, ncols=columns, sharey=True, squeeze=False) as (drawing, axes):
        for unused in axes.flat[count:]:
            unused.set_visible(False)
        yield drawing, list(axes.flat[:count])


def _sizes(task: Task) -> list[int]:
    return list(range(1, len(task.modalities) + 1))


def _title(words: str) -> str:
    return words[:1].upper() + words[1:]


def _interval_line(axis: Any, rows: pd.DataFrame, shift: float, style: dict[str, Any], label: str) -> None:
    x = rows["name"].astype(int).to_numpy() + shift
    mean, low, high = (rows[name].to_numpy(np.float64) for name in ("mean", "low", "high"))
    axis.plot(x, mean, ms=6, label=label, **style)
    axis.vlines(x, low, high, color=style["color"], lw=2, alpha=0.6)


def _seed_lines(
    axis: Any, metrics: pd.DataFrame, which: tuple[str, str, str], shift: float, style: dict[str, Any]
) -> None:
    """Draw the means of each seed of an experiment in a region, by a metric; nothing for a single seed."""
    experiment, region, metric = which
    part = metrics[(metrics["experiment"] == experiment) & (metrics["region"] == region)]
    if part["seed"].nunique() < 2:  # noqa: PLR2004 - the mean is that of the only one
        return
    for _, of_seed in part.groupby("seed"):
        subsets = of_seed.groupby(["modalities", "subset"])[metric].mean()
        sizes = subsets.groupby(level="modalities").mean()
        axis.plot(sizes.index.to_numpy() + shift, sizes.to_numpy(), color=style["color"], lw=0.7, alpha=0.6, zorder=1)


def _size_words(part: pd.DataFrame, task: Task) -> str:
    dice = part[part["metric"] == "dice"]
    texts = []
    for region in task.scored_regions:
        rows = dice[dice["region"] == region]
        values = ", ".join(f"{row['mean']:.2f} with {row['name']}" for _, row in rows.iterrows())
        texts.append(f"mean Dice {region} {values} sequences")
    return "; ".join(texts) + "."


def _spread(axis: Any, wide: pd.DataFrame, colour: str) -> None:
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, wide.shape)
    for row, name in enumerate(wide.columns):
        values = wide[name].to_numpy()
        axis.plot(values, row + jitter[:, row], ".", color=colour, ms=4, alpha=0.55)
        present = values[~np.isnan(values)]
        if len(present):
            low, middle, high = np.quantile(present, [0.25, 0.5, 0.75])
            axis.plot([low, high], [row, row], color=TEXT, lw=2.2, solid_capstyle="butt")
            axis.plot([middle], [row], "|", color=TEXT, ms=11, mew=2.2)


def _against_steps(axis: Any) -> None:
    axis.set_xlabel("training step")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # steps are whole numbers


def _losses(axis: Any, steps: Sequence[dict[str, Any]]) -> None:
    x = np.array([event["step"] for event in steps])
    series = {"total": ("loss", ACCENT, "-"), **{name: (name, *style) for name, style in LOSSES.items()}}
    for label, (key, colour, line) in series.items():
        y = np.array([float(event.get(key) or 0) for event in steps])
        if y.any():
            axis.plot(*_smooth(x, y), color=colour, ls=line, lw=2.4 if key == "loss" else 1.4, label=label)
    axis.set(ylabel="loss", ylim=(0, None))
    _against_steps(axis)
    axis.legend(fontsize=8, ncols=2)


def _smooth(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Average neighbouring steps so that about a hundred points remain."""
    width = max(1, len(x) // _SMOOTH_POINTS)
    starts = np.arange(0, len(x), width)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def _validation(axis: Any, checks: Sequence[dict[str, Any]], task: Task) -> None:
    axis.set(ylabel="validation Dice (mean of regions)", ylim=(0, 1))
    _against_steps(axis)
    names = list(dict.fromkeys(name for event in checks for name in event["dice"]))
    colours = (*SERIES[:4], ACCENT, TEXT)
    for i, name in enumerate(names):
        points = [(e["step"], float(np.nanmean(list(e["dice"][name].values())))) for e in checks if name in e["dice"]]
        line = LINES[i // len(colours) % len(LINES)]
        style = {"color": colours[i % len(colours)], "ls": line, "marker": "o", "ms": 4}
        axis.plot(*zip(*points, strict=True), label=task.display_name(name), **style)
    if names:
        axis.legend(fontsize=8)


def _training_words(name: str, steps: Sequence[dict[str, Any]], checks: Sequence[dict[str, Any]]) -> str:
    text = f"{name}: loss from {steps[0]['loss']:.2f} at step {steps[0]['step']} to {steps[-1]['loss']:.2f} at step "
    text += f"{steps[-1]['step']}."
    if checks:
        text += f" Last mean validation Dice {checks[-1]['mean']:.2f}."
    return text
