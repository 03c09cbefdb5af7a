# make demo    run phantoms -> Zarr -> training -> 15 evaluations -> report, in minutes, on any machine
# make test    run the quick tests
# make lint    check style, types, spelling and the Dockerfile
# make check   run everything that a change must pass, as in CI; 25 to 40 minutes
# make env     create .venv or bring it up to date (the other targets do this automatically)
# make lower-bounds    run the quick tests with the lowest versions that pyproject.toml allows
# make coverage    run all tests except the exhaustive ones, and measure lines and branches covered; about an hour
# make ablation    measure what each part of the method adds, on phantoms; about an hour and a half
# make predict-demo    segment two phantoms with the included model, in a minute
# make demo-model    train that model again and pack it
# make docs        build the documentation as a site: site/index.html
# make gpu-check   check one GPU in ten minutes: tests, time, memory, largest costs
#
# make slurm-up, make slurm-down   start or stop a temporary SLURM of four nodes on this machine, to try the cluster mode
#
# PYTHON=/path/to/python3.12 selects the interpreter; CORES=N gives the demo more than 2 cores.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CORES ?= 2
SLURM ?= /tmp/ccsd-slurm
VENV := .venv
STAMP := $(VENV)/.complete
RUN := . $(VENV)/bin/activate &&

.PHONY: help env reject-linked-environment demo predict-demo demo-model test lower-bounds coverage lint check format ablation docs gpu-check slurm-up slurm-down

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

env: $(STAMP)

# The stamp is written last: an interrupted installation is resumed, a complete one is left alone.
$(STAMP): pyproject.toml constraints.txt | reject-linked-environment
	@.ci/make-env "$(VENV)" "$(PYTHON)"
	touch "$@"

# A link leads to another checkout's environment, which has that checkout's code in it.
reject-linked-environment:
	@[ ! -L "$(VENV)" ] || .ci/make-env "$(VENV)"

# They need no GPU, so one that PyTorch cannot use (an old driver) must not stop them.
demo predict-demo demo-model: export CCSD_DEVICE := cpu

demo: $(STAMP)
	@$(RUN) snakemake --profile cluster/local --cores $(CORES) --configfile config/demo.yaml
	echo "Look at the report in a browser: file://$$PWD/results/demo/report.html"

predict-demo: $(STAMP)
	@$(RUN) rm -rf results/predict-demo
	mkdir -p results && cd results
	ccsd phantom predict-demo/cases --cases 2 --size 64 --seed 7 --difficulty 0.3
	rm predict-demo/cases/BraTS-GLI-*/*-t1c.nii.gz predict-demo/cases/BraTS-GLI-*/*-t2w.nii.gz
	ccsd predict predict-demo/cases predict-demo/out --model phantom --preview
	ccsd evaluate --pred predict-demo/out --ref predict-demo/cases --out predict-demo/scores
	echo "Look at the pictures results/predict-demo/out/*.png, or open the label maps in a NIfTI viewer over results/predict-demo/cases."
	echo "BraTS-GLI-00000-000 had only flair and t1; the CASE.json beside each says what was used. 'ccsd models phantom' shows the model's card."

demo-model: $(STAMP)
	@$(RUN) snakemake --profile cluster/local --cores $(CORES) --configfile config/demo_model.yaml \
		--set-threads train=1 evaluate=1 --set-resources train:tasks_per_node=1
	ccsd pack results/demo-model/runs/phantom-s0 ccsd/packed/phantom.ccsd

test: $(STAMP)
	@$(RUN) pytest -n 2

lower-bounds:
	@.ci/lower-bounds "$(PYTHON)"

coverage: $(STAMP)
	@$(RUN) rm -f .coverage*
	export PYTEST_ADDOPTS="--cov --cov-append --cov-report="
	pytest -n 2
	pytest -n 2 -m "(slow or slurm) and not gpu and not exhaustive"
	coverage report --fail-under 90

lint: $(STAMP)
	@$(RUN) ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	mypy
	codespell
	hadolint Dockerfile

check: $(STAMP)
	@.ci/check

# Such small networks gain nothing from a second core: two trainings run side by side instead.
ablation: $(STAMP)
	@$(RUN) snakemake --profile cluster/local --cores $(CORES) --configfile config/ablation.yaml \
		--set-threads train=1 evaluate=1 --set-resources train:tasks_per_node=1
	echo "Look at the report in a browser: file://$$PWD/results/ablation/report.html"

docs: $(STAMP)
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	echo "The documentation: file://$$PWD/site/index.html"

gpu-check: $(STAMP)
	@$(RUN) python benchmarks/gpu_check.py

slurm-up: $(STAMP)
	@$(RUN) python -m cluster.sandbox up $(SLURM)

slurm-down: $(STAMP)
	@$(RUN) python -m cluster.sandbox down $(SLURM)

format: $(STAMP)
	@$(RUN) ruff format && ruff check --fix && snakefmt Snakefile workflow && python docs/generate.py
