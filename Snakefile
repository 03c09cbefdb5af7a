# CCSD from cases to a report. Start with:
#
#     snakemake --profile cluster/local --configfile config/demo.yaml     the demo, on this machine
#     snakemake --profile slurm                                           config/config.yaml, on a SLURM cluster
#
# Every rule is one call of the `ccsd` command: to debug a stage, run the command that `snakemake -np` prints.
from snakemake.utils import min_version

min_version("9.27")


# A --configfile replaces config/config.yaml; it is not merged with it.
if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/convert.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/predict.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
        [study.folder.mark("predict", *job) for job in NEW_JOBS],


onsuccess:
    print(
        "\n".join(
            [
                *found_files(study, STARTED),
                *rejected_cases(study),
                f"The report is {study.folder.report.absolute()}",
                *segmented_cases(NEW),
            ]
        )
    )


onerror:
    print(
        "\n".join(
            [
                *found_files(study, STARTED),
                *rejected_cases(study),
                "Finished work is kept: to resume, run the same command again.",
            ]
        )
    )
