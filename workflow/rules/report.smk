# One page and the tables behind it.


rule report:
    """Gather all scores into tables, figures and one self-contained page."""
    input:
        expand(SCORES / "metrics.tsv", run=study.runs, group=study.groups),
    output:
        report(ROOT / "metrics.tsv", caption="../report/metrics.rst", category="Tables"),
        ROOT / "metrics.parquet",
        report(ROOT / "summary.tsv", caption="../report/summary.rst", category="Tables"),
        report(
            ROOT / "comparisons.tsv",
            caption="../report/comparisons.rst",
            category="Tables",
        ),
        html=report(
            ROOT / "report.html", caption="../report/report.rst", category="Report"
        ),
    log:
        LOGS / "report.log",
    benchmark:
        BENCHMARKS / "report.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        results=ROOT,
    shell:
        "ccsd report {params.results:q} --out {output.html:q} 2>&1 | tee -i {log:q}"
