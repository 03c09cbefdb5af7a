# From NIfTI to Zarr. The stores are never outputs: Snakemake deletes outputs before it runs a job again.


rule phantom:
    """Draw a cohort of phantoms in the file layouts of BraTS."""
    output:
        touch(study.folder.mark("phantoms")),
    log:
        LOGS / "phantom.log",
    benchmark:
        BENCHMARKS / "phantom.tsv"
    threads: 1
    params:
        **phantom_task(study),
        ccsd=lambda wildcards, resources: CCSD,
        dest=study.source,
        options=phantom_options(study),
    shell:
        "{params.ccsd} phantom {params.dest:q} {params.options} 2>&1 | tee -i {log:q}"


rule convert:
    """Convert one part of the cases to Zarr; converted cases are kept, bad ones are left out."""
    input:
        rules.phantom.output if study.config.phantom else [],
    output:
        touch(study.folder.mark("convert", "{part}")),
    log:
        LOGS / "convert" / "{part}.log",
    benchmark:
        BENCHMARKS / "convert" / "{part}.tsv"
    threads: 2
    params:
        ccsd=lambda wildcards, resources: CCSD,
        source=study.source,
        dest=DATA,
        part=lambda wildcards: wildcards.part.replace("-of-", "/"),
        options=convert_options(study),
        cases=study.cases_digest(),
    shell:
        "{params.ccsd} convert {params.source:q} {params.dest:q} --part {params.part} --workers {threads} --keep-going"
        " {params.options}"
        " 2>&1 | tee -i {log:q}"


rule split:
    """List the cases and split them into training, validation and test cases."""
    input:
        expand(rules.convert.output, part=PARTS),
        study.config.split.list or [],
        study.config.split.patients or [],
    output:
        DATA / CASES_FILE,
        DATA / FINGERPRINT_FILE,
        split=DATA / SPLIT_FILE,
    log:
        LOGS / "split.log",
    benchmark:
        BENCHMARKS / "split.tsv"
    threads: 1
    params:
        ccsd=lambda wildcards, resources: CCSD,
        dest=DATA,
        options=split_options(study),
    shell:
        "{params.ccsd} split {params.dest:q} {params.options} 2>&1 | tee -i {log:q}"
