"""HD95 of BraTS-sized masks: this project's compared with MONAI's and with a medpy-style one, in the same run.

    python benchmarks/hd95.py [--cases 8] [--repeats 3] [--json]

The masks are tumour-like: 240 x 240 x 155, whole tumours of 20 to 200 ml and their cores, with predictions whose
borders differ by a few millimetres (Dice about 0.75 to 0.95). Every implementation sees every pair of masks, one after
another, and the best of the repeats counts. The numbers must agree to 1e-4 mm, or the script fails. `ratio` is the
smaller of the two speed-ups: total time of the peer divided by that of this project.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from ccsd.metrics.surface import Surface, surface_scores

SHAPE = (155, 240, 240)
SPACING = (1.0, 1.0, 1.0)
Mask = np.ndarray
Pair = tuple[Mask, Mask]


def main() -> None:
    """Make masks, time the implementations on them, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pairs = [pair for seed in range(options.cases) for pair in make_pairs(seed)]
    totals = dict.fromkeys(("ccsd", "monai", "medpy-style"), 0.0)
    for pair in pairs:
        best = {name: time_best(function, pair, options.repeats) for name, function in IMPLEMENTATIONS.items()}
        check({name: value for name, (_, value) in best.items()})
        for name, (seconds, _) in best.items():
            totals[name] += seconds
    speedups = {name: totals[name] / totals["ccsd"] for name in ("monai", "medpy-style")}
    for name, seconds in totals.items():
        print(f"{name:12} {1000 * seconds / len(pairs):8.1f} ms per pair")
    print(f"same numbers on {len(pairs)} pairs; speed-up {', '.join(f'{n} {s:.1f}' for n, s in speedups.items())}")
    if options.json:
        report = {"ratio": min(speedups.values()), "speedups": speedups, "pairs": len(pairs)}
        print(json.dumps({**report, "ms_per_pair": {n: 1000 * s / len(pairs) for n, s in totals.items()}}))


def make_pairs(seed: int) -> list[Pair]:
    """Return reference and prediction of a tumour and of its core."""
    rng = np.random.default_rng(seed)
    centre = np.array(SHAPE) / 2 + rng.uniform(-25, 25, 3)
    radius = (rng.uniform(20, 200) * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    grid = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))).astype(np.float32)
    shape_noise, error = (smooth_noise(rng, size) for size in (9.0, 4.0))
    reference = distance + 5 * shape_noise
    predicted = reference + rng.uniform(0.8, 2.0) * error
    return [(reference < r, predicted < r) for r in (radius, 0.6 * radius)]


def smooth_noise(rng: np.random.Generator, size: float) -> np.ndarray:
    """Return noise with bumps of about `size` voxels, mean 0 and standard deviation 1."""
    coarse = rng.normal(size=[int(side / size) + 2 for side in SHAPE])
    factors = [side / n for side, n in zip(SHAPE, coarse.shape, strict=True)]
    noise = ndimage.zoom(coarse, factors, order=1, output=np.float32)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return np.asarray((noise - noise.mean()) / noise.std())


def ours(first: Mask, second: Mask) -> tuple[float, float]:
    """Return both definitions at once, as an evaluation computes them."""
    scores = surface_scores(Surface.of(first, SPACING), Surface.of(second, SPACING))
    assert scores is not None
    return scores.hd95, scores.hd95_pooled


def monai(first: Mask, second: Mask) -> tuple[float, None]:
    """Return the larger of the directed percentiles."""
    tensors = [torch.from_numpy(mask)[None, None] for mask in (first, second)]
    found = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=SPACING)
    return float(found), None


def medpy_style(first: Mask, second: Mask) -> tuple[None, float]:
    """Return the pooled percentile, by distance transforms of the whole volume as medpy computes it."""
    both = [directed(first, second), directed(second, first)]
    return None, float(np.percentile(np.hstack(both), 95))


def directed(first: Mask, second: Mask) -> np.ndarray:
    """Return the distances from the surface of the first mask to that of the second."""
    cross = ndimage.generate_binary_structure(3, 1)
    edges = [mask ^ ndimage.binary_erosion(mask, structure=cross, iterations=1) for mask in (first, second)]
    return np.asarray(ndimage.distance_transform_edt(~edges[1], sampling=SPACING)[edges[0]])


def time_best(function: Callable[[Mask, Mask], tuple[float | None, float | None]], pair: Pair, repeats: int):  # noqa: ANN201 - of the line above
    """Return the shortest time and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function(*pair)
        times.append(time.perf_counter() - start)
    return min(times), value


def check(values: dict[str, tuple[float | None, float | None]]) -> None:
    """Fail if implementations disagree on what both compute."""
    expected = values["ccsd"]
    for name, found in values.items():
        for own, other in zip(expected, found, strict=True):
            if other is not None and abs(own - other) > 1e-4:
                raise SystemExit(f"{name} says {other} mm, ccsd {own} mm")


IMPLEMENTATIONS = {"ccsd": ours, "monai": monai, "medpy-style": medpy_style}

if __name__ == "__main__":
    main()
