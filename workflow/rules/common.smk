# The configuration, checked once, and the names that all rules share.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate as validate_schema

from ccsd.errors import USER_ERRORS
from ccsd.snakemake import Study
from cluster.errors import JobError
from cluster.snakemake import lock, stale_jobs, wrappers

try:
    study = Study.from_mapping(config)
    PARTS = study.parts
except USER_ERRORS as error:
    raise WorkflowError(str(error)) from None

# Before Snakemake looks at what is there. The processes that it starts for jobs leave that alone.
if workflow.is_main_process:
    for told in (
        study.drop_outdated_marks(),
        study.date_back(),
    ):
        if told:
            print(told, file=sys.stderr, flush=True)
    study.note_attempts()

# Values given with --config arrive as text; from here on they have the types of the models.
config = study.config.model_dump(mode="json")
validate_schema(
    config, workflow.source_path("../schemas/config.schema.json"), set_default=False
)

ROOT = study.root
DATA = ROOT / "data"
RUN = ROOT / "runs" / "{experiment}-s{seed}"
SCORES = ROOT / "evaluation" / "{run}" / "{group}"
LOGS = ROOT / "logs"
BENCHMARKS = ROOT / "benchmarks"
MARKS = study.marks


wildcard_constraints:
    experiment=r"[A-Za-z0-9][A-Za-z0-9_.]*",
    seed=r"\d+",
    run=r"[A-Za-z0-9][A-Za-z0-9_.]*-s\d+",
    group=r"[a-z0-9+-]+",
    part=r"\d+-of-\d+",


# Written before the first job, not by a rule: as an input it would repeat everything when one setting changes, and as
# an ancient() input it keeps Snakemake from seeing what else is missing.
onstart:
    try:
        lock.hold(ROOT)
        study.write_config()
        # Only SLURM's executor names its jobs.
        run = getattr(workflow.scheduler._executor, "run_uuid", None)
        if run is not None and stale_jobs.cancel(ROOT, run):
            print(
                "cancelled the jobs that an earlier Snakemake left in the queue",
                flush=True,
            )
    except (*USER_ERRORS, JobError) as error:
        raise WorkflowError(str(error)) from None
    wrappers.install(Path(".snakemake/bin").absolute())
