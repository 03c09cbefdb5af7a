# Images with everything in them; nothing is fetched when they run. docs/how-to/containers.md says how to use them.
#
#     docker build --target predict -t ccsd:predict .                          predict, evaluate, report, on the CPU
#     docker build --target predict --build-arg DEVICE=cuda -t ccsd:predict-cuda .
#     docker build --target full --build-arg DEVICE=cuda -t ccsd:full .        also training and the workflow
#
# cluster/ccsd.def has the same lines for Apptainer; a test holds that they are the same.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS base
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# What Triton links its kernels with on a GPU.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/ccsd
COPY constraints.txt ./
# torch first and alone, as `make env` does: nothing else decides which build of it is taken.
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "DEVICE=$DEVICE: cpu or cuda" >&2; exit 1 ;; \
    esac; \
    pip install -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY preprocess preprocess
COPY cluster cluster
COPY ccsd ccsd
# Whoever runs it has any number (docker -u, Apptainer): a home and caches that all can write to.
RUN mkdir -m 1777 /home/ccsd /work
# Python takes the packages of the image, never those in the home or the current folder, which Apptainer brings along.
ENV HOME=/home/ccsd USER=ccsd MPLBACKEND=agg PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1
WORKDIR /work
ENTRYPOINT ["ccsd"]
CMD ["--help"]
LABEL org.opencontainers.image.title="ccsd" \
      org.opencontainers.image.description="Brain-tumour segmentation from any set of MRI sequences. Not for clinical use." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

FROM base AS predict
RUN pip install -c /opt/ccsd/constraints.txt /opt/ccsd
USER 1000:1000
RUN ccsd models

FROM base AS full
COPY Snakefile /opt/ccsd/
COPY workflow /opt/ccsd/workflow
COPY config /opt/ccsd/config
RUN pip install -c /opt/ccsd/constraints.txt "/opt/ccsd[train,workflow,hub]"
USER 1000:1000
RUN ccsd models
