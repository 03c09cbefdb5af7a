# Training. The rule only starts it and waits; where it runs and on how much is in the profile (set-resources: train), as
# job settings.
from cluster.settings import job_options


rule train:
    """Train one experiment with one seed, on this machine or as a job that is submitted or attached to."""
    input:
        rules.split.output,
    output:
        # update(): never deleted before a job, so that an interrupted workflow does not lose a finished training.
        model=update(RUN / "model.safetensors"),
        run=update(RUN / "run.json"),
    log:
        LOGS / "train" / "{experiment}-s{seed}.log",
    benchmark:
        BENCHMARKS / "train" / "{experiment}-s{seed}.tsv"
    localrule: True
    threads: 1
    resources:
        cluster="local",
    params:
        config=study.config_file,
        data=DATA,
        run=lambda wildcards, output: Path(output.model).parent,
        science=lambda wildcards: study.training_reason(
            wildcards.experiment, wildcards.seed
        ),
        # What depends on `resources` is no reason to train again.
        options=lambda wildcards, resources: job_options(dict(resources.items())),
    shell:
        "ccsd train --config {params.config:q} --data {params.data:q} --run {params.run:q}"
        " --experiment {wildcards.experiment} --set train.seed={wildcards.seed}"
        " {params.options}"
        " 2>&1 | tee -i {log:q}"
