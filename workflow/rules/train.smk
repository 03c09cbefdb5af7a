# Training. The rule only starts it and waits; the profile (set-resources: train) defines where it runs and with which
# resources, as job settings.
from cluster.errors import SettingsError
from cluster.launch import check_folder

# Read and checked here, so that a dry run reports what the training would reject after the conversion.
try:
    JOB, JOB_OPTIONS = profile.training_settings(workflow)
    check_folder(study.folder.root.absolute(), JOB)
except SettingsError as error:
    raise WorkflowError(str(error)) from None
BY_EXECUTOR = JOB.cluster == "executor"


rule train:
    """Train one experiment with one seed (and in one fold), here or as a job that is submitted or attached to."""
    input:
        rules.split.output,
    output:
        # update(): not deleted before a job, and restored if it fails, so that a finished training is never lost.
        model=update(RUN / WEIGHTS),
        run=update(RUN / RECORD_FILE),
        # Snakemake records restored files as made with the new settings. This mark is missing until that is true.
        done=touch(study.folder.mark("train", NAME)),
    log:
        LOGS / "train" / f"{NAME}.log",
    benchmark:
        BENCHMARKS / "train" / f"{NAME}.tsv"
    # A training's own job outlives Snakemake and is requeued by its launcher; if Snakemake retried it as well,
    # `scancel` could not stop it. A job of the executor is restarted by Snakemake alone.
    retries: JOB.max_requeues if BY_EXECUTOR else 0
    localrule: not BY_EXECUTOR
    threads: 1 if JOB.cluster == "slurm" else JOB.tasks * JOB.cpus_per_task
    params:
        config=study.folder.config,
        data=DATA,
        run=lambda wildcards, output: Path(output.model).parent,
        science=lambda wildcards: study.training_digest(NAME.format(**wildcards)),
        # What depends on `resources` never triggers a new training.
        options=lambda wildcards, resources: fold_option(NAME.format(**wildcards))
        + JOB_OPTIONS,
    shell:
        "ccsd train --config {params.config:q} --data {params.data:q} --run {params.run:q}"
        " --experiment {wildcards.experiment} --set train.seed={wildcards.seed}"
        " {params.options}"
        " 2>&1 | tee -i {log:q}"
