# One page and the tables behind it.


rule report:
    """Collect all scores in tables, figures and one self-contained page."""
    input:
        expand(GROUP / SCORES_FILE, run=study.models, group=study.groups),
        study.folder.adopted(),
        [study.folder.mark("calibrate", run) for run in CALIBRATED],
    output:
        report(
            study.folder.scores,
            caption="../report/metrics.rst",
            category="Tables",
        ),
        study.folder.scores_parquet,
        report(
            study.folder.summary,
            caption="../report/summary.rst",
            category="Tables",
        ),
        report(
            study.folder.comparisons,
            caption="../report/comparisons.rst",
            category="Tables",
        ),
        html=report(
            study.folder.report, caption="../report/report.rst", category="Report"
        ),
    log:
        LOGS / "report.log",
    benchmark:
        BENCHMARKS / "report.tsv"
    threads: 1
    params:
        ccsd=lambda wildcards, resources: CCSD,
        results=study.folder.root,
    shell:
        "{params.ccsd} report {params.results:q} --out {output.html:q} 2>&1 | tee -i {log:q}"
