# Scores of a run or an ensemble; evaluation.subsets_per_job distributes the combinations of modalities over jobs.


rule evaluate:
    """Segment the test cases from some combinations of modalities and score them."""
    input:
        rules.split.output,
        lambda wildcards: [
            study.folder.mark("train", run) for run in members(wildcards.run)
        ],
        model=lambda wildcards: [
            study.folder.run(run) / WEIGHTS for run in members(wildcards.run)
        ],
    output:
        GROUP / EVALUATION_FILE,
        metrics=GROUP / SCORES_FILE,
    log:
        LOGS / "evaluate" / "{run}" / "{group}.log",
    benchmark:
        BENCHMARKS / "evaluate" / "{run}" / "{group}.tsv"
    threads: 2
    params:
        ccsd=lambda wildcards, resources: CCSD,
        model=lambda wildcards, input: Path(input.model[0]).parent,
        data=DATA,
        out=lambda wildcards, output: Path(output.metrics).parent,
        # These include the other models of an ensemble.
        options=lambda wildcards: evaluation_options(
            study, wildcards.group, wildcards.run
        ),
        # If a training with new settings fails, the earlier scores stay; this digest changes and requests the training
        # again.
        science=lambda wildcards: study.evaluation_digest(wildcards.run),
    shell:
        "{params.ccsd} evaluate --model {params.model:q} --data {params.data:q} --out {params.out:q} {params.options}"
        " --workers {threads}"
        " 2>&1 | tee -i {log:q}"
