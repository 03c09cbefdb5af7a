# Scores of a run, fanned out over the combinations of modalities by evaluation.subsets_per_job.


rule evaluate:
    """Segment the test cases from some combinations of modalities and score them."""
    input:
        rules.split.output,
        model=ROOT / "runs" / "{run}" / "model.safetensors",
    output:
        SCORES / "evaluation.json",
        metrics=SCORES / "metrics.tsv",
    log:
        LOGS / "evaluate" / "{run}" / "{group}.log",
    benchmark:
        BENCHMARKS / "evaluate" / "{run}" / "{group}.tsv"
    threads: 2
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        model=lambda wildcards, input: Path(input.model).parent,
        data=DATA,
        out=lambda wildcards, output: Path(output.metrics).parent,
        options=lambda wildcards: study.evaluation_options(wildcards.group),
    shell:
        "ccsd evaluate --model {params.model:q} --data {params.data:q} --out {params.out:q} {params.options}"
        " 2>&1 | tee -i {log:q}"
