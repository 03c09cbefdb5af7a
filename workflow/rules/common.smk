# The configuration, validated once, and the names that all rules share.
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ccsd.errors import USER_ERRORS
from ccsd.snakemake import (
    calibrated_models,
    calibration_options,
    convert_options,
    evaluation_options,
    fold_option,
    found_files,
    outdated_marks,
    phantom_options,
    phantom_task,
    plan_without,
    prediction_options,
    rejected_cases,
    segmented_cases,
    split_options,
)
from ccsd.new_cases import NewCases
from ccsd.runs import members, run_name
from ccsd.study import JOB as JOB_FOLDER
from ccsd.study import (
    EVALUATION_FILE,
    RECORD_FILE,
    SCORES_FILE,
    WEIGHTS,
    Study,
)
from cluster.errors import JobError
from cluster.snakemake import (
    lock,
    profile,
    screen,
    stale_jobs,
    trial,
    watch,
    wrappers,
)
from preprocess.dataset import CASES_FILE, FINGERPRINT_FILE
from preprocess.splits import FILE as SPLIT_FILE

if workflow.is_main_process:
    screen.quieten(workflow)

try:
    study = Study.from_mapping(config)
    PARTS = study.parts
    NEW = NewCases(study)
    NEW_JOBS = NEW.jobs
    CALIBRATED = calibrated_models(NEW)
    profile.read_texts(workflow)
    # Rules get it through `resources`: what depends on them never triggers a rerun.
    CCSD = profile.program(workflow)
except USER_ERRORS as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process:
    for note in study.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)

# Nothing is changed on disk here: dry runs parse the workflow, too.
OUTDATED = (
    outdated_marks(study) | NEW.outdated_marks() if workflow.is_main_process else {}
)
if OUTDATED:
    print(
        f"cases are missing from {', '.join(map(str, OUTDATED))}; they are recreated if anything needs them",
        file=sys.stderr,
        flush=True,
    )
    plan_without(workflow, sum(OUTDATED.values(), []))

# Values given with --config arrive as strings; from here on they have the types of the models.
config = study.config.model_dump(mode="json")

STARTED = time.time()
DATA = study.folder.data
NAME = run_name("{experiment}{fold}", "{seed}")
RUN = study.folder.run(NAME)
GROUP = study.folder.evaluation("{run}", "{group}")
LOGS = study.folder.logs
BENCHMARKS = study.folder.benchmarks


wildcard_constraints:
    experiment=r"[A-Za-z0-9][A-Za-z0-9_.]*",
    fold=r"(-f\d+)?",
    seed=r"\d+",
    run=r"[A-Za-z0-9][A-Za-z0-9_.]*(-f\d+(\+\d+)*)?-s\d+(\+\d+)*",
    group=r"[a-z0-9+-]+",
    part=r"\d+-of-\d+",


# The configuration is written before the first job, not by a rule: as an input it would repeat everything when one
# setting changes, and as an ancient() input it would keep Snakemake from noticing other missing files.
onstart:
    try:
        trial.try_jobs(workflow, JOB)
        lock.hold_study(study.folder.root)
        trial.refuse_to_disturb(
            workflow,
            ("phantom", "convert", "split"),
            [folder / JOB_FOLDER for folder in study.folder.run_folders()],
        )
        study.write_config()
        for mark in sum(OUTDATED.values(), []):
            mark.unlink(missing_ok=True)
        # Only SLURM's executor names its jobs.
        run = getattr(workflow.scheduler._executor, "run_uuid", None)
        if run is not None and stale_jobs.cancel_stale_jobs(study.folder.root, run):
            print(
                "cancelled the jobs that an earlier Snakemake left in the queue",
                flush=True,
            )
    except (*USER_ERRORS, JobError) as error:
        raise WorkflowError(str(error)) from None
    wrappers.separate_logs(workflow.scheduler._executor, study.config.name)
    wrappers.install_wrappers(Path(".snakemake/bin").absolute())
    watch.start(Path(".snakemake/bin").absolute(), workflow.scheduler)
