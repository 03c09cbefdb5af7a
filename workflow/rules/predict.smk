# New cases (predict.source), segmented by the models of the study: one job for each part of them.


rule predict:
    """Segment one part of the new cases; those already segmented by the same models are skipped."""
    input:
        lambda wildcards: [
            study.folder.mark("train", run) for run in members(wildcards.run)
        ],
        lambda wildcards: [
            study.folder.run(run) / WEIGHTS for run in members(wildcards.run)
        ],
        lambda wildcards: [
            study.folder.mark("calibrate", run)
            for run in CALIBRATED
            if run == wildcards.run
        ],
    output:
        touch(study.folder.mark("predict", "{run}", "{part}")),
    log:
        LOGS / "predict" / "{run}" / "{part}.log",
    benchmark:
        BENCHMARKS / "predict" / "{run}" / "{part}.tsv"
    threads: 2
    params:
        ccsd=lambda wildcards, resources: CCSD,
        source=NEW.settings.source or "",
        out=lambda wildcards: study.folder.predictions(wildcards.run),
        part=lambda wildcards: wildcards.part.replace("-of-", "/"),
        options=lambda wildcards: prediction_options(NEW, wildcards.run),
        science=lambda wildcards: NEW.digest(wildcards.run),
    shell:
        "{params.ccsd} predict {params.source:q} {params.out:q} --part {params.part} --skip-existing {params.options}"
        " 2>&1 | tee -i {log:q}"
