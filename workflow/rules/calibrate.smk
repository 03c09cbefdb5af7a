# Which Dice to expect of a model's segmentations, where evaluation.calibrate asks for it.


rule calibrate:
    """Compare how sure a run or an ensemble is with how good it is on its validation cases."""
    input:
        rules.split.output,
        lambda wildcards: [
            study.folder.mark("train", run) for run in members(wildcards.run)
        ],
        lambda wildcards: [
            study.folder.run(run) / WEIGHTS for run in members(wildcards.run)
        ],
    output:
        # calibration.json lies in the folder of the run.
        touch(study.folder.mark("calibrate", "{run}")),
    log:
        LOGS / "calibrate" / "{run}.log",
    benchmark:
        BENCHMARKS / "calibrate" / "{run}.tsv"
    threads: 2
    params:
        ccsd=lambda wildcards, resources: CCSD,
        data=DATA,
        options=lambda wildcards: calibration_options(study, wildcards.run),
        science=lambda wildcards: study.weights_digest(wildcards.run),
    shell:
        "{params.ccsd} calibrate {params.options} --data {params.data:q}"
        " 2>&1 | tee -i {log:q}"
