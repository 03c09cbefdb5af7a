"""The configuration files of a throw-away cluster: pure functions from a layout to text, and a function to write them.

Every line that is not obvious is there because a plain one-machine cluster fails or is slow without it.
"""

import getpass
import os
import secrets
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.rendezvous import free_ports
from cluster.sandbox import accounting

WRAPPED = ("sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "sprio", "squeue", "srun", "sshare")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx")


@dataclass(frozen=True)
class Layout:
    """The number and size of nodes, and timings; nodes are named after addresses, so that their names resolve."""

    gpu_nodes: int = 2
    cpu_nodes: int = 2
    gpus: int = 4
    cpus: int = 64
    memory_mb: int = 512_000
    requeue_wait_s: int = 5
    node_timeout_s: int = 10
    preempt_signal: bool = True
    accounting: bool = False

    @property
    def nodes(self) -> list[str]:
        """Return the nodes' names, those with GPUs first."""
        return [
            *(f"127.0.1.{index + 1}" for index in range(self.gpu_nodes)),
            *(f"127.0.2.{index + 1}" for index in range(self.cpu_nodes)),
        ]


def slurm_conf(base: Path, layout: Layout, ports: range, host: str, user: str, first_job: int) -> str:
    """Return slurm.conf; ports[0] is the controller's, followed by one for each node and two for accounting."""
    gpu_ports = f"[{ports[1]}-{ports[layout.gpu_nodes]}]"
    cpu_ports = f"[{ports[layout.gpu_nodes + 1]}-{ports[layout.gpu_nodes + layout.cpu_nodes]}]"
    size = (
        f"CPUs={layout.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={layout.cpus} ThreadsPerCore=1 "
        f"RealMemory={layout.memory_mb} State=UNKNOWN"
    )
    gpu_names, cpu_names = f"127.0.1.[1-{layout.gpu_nodes}]", f"127.0.2.[1-{layout.cpu_nodes}]"
    limits = "MaxTime=7-0 DefaultTime=10 State=UP"
    preempt = "SlurmctldParameters=preempt_send_user_signal" if layout.preempt_signal else ""
    none = "AccountingStorageType=accounting_storage/none"
    records = accounting.controller_lines(base, ports[-2:]) if layout.accounting else none
    return f"""\
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again only when its old credential has expired: 121 s by default.
AuthInfo=socket={base}/run/munge.sock,cred_expire={layout.requeue_wait_s}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
# Nothing here needs cgroups, systemd or root.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{records}
MpiDefault=none
SwitchType=switch/none
# Nodes may claim more cores and memory than the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Without it a job takes all memory of its node.
DefMemPerCPU=100
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=50000,sched_interval=2,bf_interval=2,bf_resolution=1
MinJobAge=600
# IDs differ from cluster to cluster, so that nothing left by an older cluster is mistaken for a job's result.
FirstJobId={first_job}
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout={layout.node_timeout_s}
MessageTimeout=20
InactiveLimit=0
ReturnToService=2
RebootProgram=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{preempt}
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc={base}/log/jobcomp.txt
NodeName={gpu_names} NodeAddr=127.0.0.1 NodeHostname={host} Port={gpu_ports} Gres=gpu:h100:{layout.gpus} {size}
NodeName={cpu_names} NodeAddr=127.0.0.1 NodeHostname={host} Port={cpu_ports} {size}
PartitionName=cpu Nodes={cpu_names} Default=YES {limits} PriorityTier=10
PartitionName=gpu Nodes={gpu_names} {limits} PriorityTier=10 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes={gpu_names} {limits} PriorityTier=100 PreemptMode=OFF
"""


def gres_conf(layout: Layout, devices: list[str]) -> str:
    """Return gres.conf; SLURM counts a GPU only if it has its own character device."""
    names = f"127.0.1.[1-{layout.gpu_nodes}]"
    return "".join(f"NodeName={names} Name=gpu Type=h100 File={device}\n" for device in devices)


def environment(base: Path) -> dict[str, str]:
    """Return the variables to set for using the cluster.

    The programs in `base`/bin set SLURM_CONF themselves: Snakemake's executor drops every variable that starts so.
    """
    path = os.environ.get("PATH", "")
    own = str(base / "bin")
    return {"PATH": path if path.split(":")[0] == own else f"{own}:{path}"}


def write_files(base: Path, layout: Layout) -> range:
    """Write configuration, key and wrappers below `base`; return the ports in the order of `slurm_conf`."""
    for name in ("bin", "dev", "etc", "log", "run", "spool", "state"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name in ("", "run"):
        (base / name).chmod(0o755)  # munge rejects sockets in folders that others may write to
    host = socket.gethostname().partition(".")[0]
    ports = free_ports(1 + len(layout.nodes) + 2)
    text = slurm_conf(base, layout, ports, host, getpass.getuser(), int(time.time()) % 60_000_000 + 1)
    (base / "etc/slurm.conf").write_text(text)
    (base / "etc/gres.conf").write_text(gres_conf(layout, pretend_gpus(base / "dev", layout.gpus)))
    records = base / "etc/slurmdbd.conf"
    records.touch(0o600)
    records.write_text(accounting.slurmdbd_conf(base, ports[-2:]))
    key = base / "etc/munge.key"
    if not key.exists():
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
    (base / "state/munge.seed").touch(0o600)
    for name in WRAPPED:
        wrapper = base / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={base}/etc/slurm.conf exec /usr/bin/{name} "$@"\n')
        wrapper.chmod(0o755)
    return ports


def pretend_gpus(folder: Path, count: int) -> list[str]:
    """Return `count` character devices: copies of /dev/null if permitted, else devices that every machine has."""
    made = [folder / f"nvidia{index}" for index in range(count)]
    try:
        for path in made:
            if not path.exists():
                os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        return [device for device in DEVICES if Path(device).exists()][:count]
    return [str(path) for path in made]
