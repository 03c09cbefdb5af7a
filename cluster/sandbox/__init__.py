"""A real SLURM with several nodes on this one machine, for trying the cluster mode and for tests.

    python -m cluster.sandbox up /tmp/slurm        a controller and four nodes, two of them with pretend GPUs
    eval "$(python -m cluster.sandbox env /tmp/slurm)"
    sinfo
    python -m cluster.sandbox down /tmp/slurm

It needs Debian's or Ubuntu's packages slurmctld, slurmd, slurm-client and munge, and nothing else: no root, systemd,
cgroups or containers. Everything is below the given folder; `down` ends every process, including those that survived a
crash.
"""

from cluster.sandbox.cluster import down, install, missing, up
from cluster.sandbox.config import Layout, environment

__all__ = ["Layout", "down", "environment", "install", "missing", "up"]
