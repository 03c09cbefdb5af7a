# Training. The rule only submits and waits; where it runs and on how much is in the profile (set-resources: train).


rule train:
    """Train one experiment with one seed: submit the job or attach to it, then wait for its weights."""
    input:
        rules.split.output,
    output:
        # update(): not deleted before a job, and put back when it fails, so that a finished training is never lost.
        model=update(RUN / WEIGHTS),
        run=update(RUN / RECORD),
        # Snakemake remembers what it put back as made with the new settings. This is missing until they are trained.
        done=touch(study.folder.mark("train", run_name("{experiment}", "{seed}"))),
    log:
        LOGS / "train" / "{experiment}-s{seed}.log",
    benchmark:
        BENCHMARKS / "train" / "{experiment}-s{seed}.tsv"
    localrule: True
    threads: 1
    resources:
        cluster="local",
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=0,
        cpus_per_task=1,
        mem_gb="",
        timeout_min="",
        partition="",
        account="",
        qos="",
        constraint="",
        sbatch="",
    params:
        config=study.folder.config,
        data=DATA,
        run=lambda wildcards, output: Path(output.model).parent,
        science=lambda wildcards: study.training_digest(
            run_name(wildcards.experiment, wildcards.seed)
        ),
    shell:
        "ccsd train --config {params.config:q} --data {params.data:q} --run {params.run:q}"
        " --experiment {wildcards.experiment} --set train.seed={wildcards.seed}"
        " --job cluster={resources.cluster} --job nodes={resources.nodes}"
        " --job tasks_per_node={resources.tasks_per_node} --job gpus_per_node={resources.gpus_per_node}"
        " --job cpus_per_task={resources.cpus_per_task} --job mem_gb={resources.mem_gb}"
        " --job timeout_min={resources.timeout_min} --job partition={resources.partition:q}"
        " --job account={resources.account:q} --job qos={resources.qos:q}"
        " --job constraint={resources.constraint:q} --job extra={resources.sbatch:q}"
        " 2>&1 | tee -i {log:q}"
