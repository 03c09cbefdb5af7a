"""The workflow at the size of a study: jobs, seconds of a dry run, files written, and what batching saves.

    python benchmarks/dag_scale.py --json

1251 cases (BraTS 2021) as empty files, 15 combinations, 5 experiments, 3 seeds. With --json the last line is one
object; `ratio` is the number of cluster jobs without batching of the conversion, divided by that with it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
METHODS = ("full", "dropout", "hmsd", "dmcd", "ccsd")
LINKS = ("Snakefile", "workflow", "config", "cluster", "slurm")


def make_source(folder: Path, cases: int) -> None:
    """Write the file names of a BraTS 2021 cohort, without content."""
    for index in range(cases):
        name = f"BraTS2021_{index:05d}"
        (folder / name).mkdir(parents=True)
        for ending in ("flair", "t1", "t1ce", "t2", "seg"):
            (folder / name / f"{name}_{ending}.nii.gz").touch()


def study(source: Path, cases_per_job: int, experiments: int, seeds: int) -> dict[str, object]:
    """Return the configuration: every experiment uses a different method."""
    return {
        "name": "scale",
        "source": str(source),
        "convert": {"cases_per_job": cases_per_job},
        "evaluation": {"subsets_per_job": 1},
        "experiments": {name: {"distillation.method": name} for name in METHODS[:experiments]},
        "seeds": list(range(seeds)),
    }


def dry_run(folder: Path, config: dict[str, object]) -> tuple[dict[str, int], float]:
    """Return jobs by rule and the seconds that `snakemake --profile slurm --dry-run` takes."""
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    begun = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "slurm",
            "--configfile",
            "study.yaml",
            "-n",
            "--quiet",
            "rules",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    counts = {
        name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    }
    return counts, seconds


def files_of_a_run(folder: Path, jobs: dict[str, int]) -> int:
    """Return how many files the workflow writes: all outputs, and a log and a benchmark of each job.

    What the stages write beside their outputs (stores, checkpoints, predictions) is not counted.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "study.yaml", "--summary"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return len(listed.stdout.splitlines()) - 1 + 2 * submitted(jobs)


def submitted(jobs: dict[str, int]) -> int:
    """Return how many jobs SLURM receives: all but the target; each training launcher submits one."""
    return jobs["total"] - jobs["all"]


def measure(cases: int, cases_per_job: int, experiments: int, seeds: int, repeats: int) -> dict[str, object]:
    """Return the numbers of a study of this size."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_source(folder / "source", cases)
        for name in LINKS:
            (folder / name).symlink_to(ROOT / name)
        batched = [dry_run(folder, study(folder / "source", cases_per_job, experiments, seeds)) for _ in range(repeats)]
        jobs = batched[0][0]
        files = files_of_a_run(folder, jobs)
        single, single_s = dry_run(folder, study(folder / "source", 1, experiments, seeds))
        left_by_dry_run = sum(1 for path in folder.rglob("*") if path.is_file()) - 5 * cases - 1
    return {
        "cases": cases,
        "jobs": jobs,
        "cluster_jobs": submitted(jobs),
        "cluster_jobs_without_batching": submitted(single),
        "tiny_jobs_avoided": submitted(single) - submitted(jobs),
        "dry_run_s": round(min(seconds for _, seconds in batched), 2),
        "dry_run_s_all": [round(seconds, 2) for _, seconds in batched],
        "dry_run_without_batching_s": round(single_s, 2),
        "files_written_by_dry_run": left_by_dry_run,
        "files_written_by_a_run": files,
        "load": round(os.getloadavg()[0], 1),
        "ratio": round(submitted(single) / submitted(jobs), 2),
    }


def main() -> None:
    """Print the numbers, as text or as one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=1251)
    parser.add_argument("--cases-per-job", type=int, default=32)
    parser.add_argument("--experiments", type=int, default=5, choices=range(1, len(METHODS) + 1))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.cases, options.cases_per_job, options.experiments, options.seeds, options.repeats)
    for key, value in found.items():
        print(f"{key:32} {value}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
