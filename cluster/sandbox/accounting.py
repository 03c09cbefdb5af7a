"""Accounting for a throw-away cluster: a private MariaDB and slurmdbd, so that sacct works."""

import getpass
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.errors import JobError
from cluster.waiting import wait_until

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")
PACKAGES = "slurmdbd mariadb-server-core mariadb-client-core"
PATIENCE_S = 60.0
ACCOUNT = "lab"
"""The account that the user of the cluster may use; limits are enforced."""
SQL = (
    "CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; "
    "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';"
)

Spawn = Callable[[Sequence[str], str], None]
"""Starts a daemon of the cluster, given the command and the name of its log."""


def controller_lines(base: Path, ports: range) -> str:
    """Return the lines of slurm.conf that send records to slurmdbd on ports[0]; the password is munge's socket."""
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[0]}
AccountingStoragePass={base}/run/munge.sock
AccountingStoreFlags=job_comment
AccountingStorageEnforce=limits,qos"""


def slurmdbd_conf(base: Path, ports: range) -> str:
    """Return slurmdbd.conf: it listens on ports[0] and finds its database on ports[1]."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[0]}
SlurmUser={getpass.getuser()}
LogFile={base}/log/slurmdbd.log
PidFile={base}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[1]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""


def start(base: Path, ports: range, spawn: Spawn, find: Callable[[str], str | None]) -> None:
    """Start the database and slurmdbd, and return when slurmdbd accepts connections; munge must be running."""
    data, user = base / "state/database", getpass.getuser()
    if not data.exists():
        install = [find("mariadb-install-db") or "", "--no-defaults", f"--datadir={data}", f"--user={user}"]
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        with (base / "log/database-install.out").open("wb") as log:
            subprocess.run([*install, *options], stdout=log, stderr=log, check=True)
    spawn(
        [
            "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={base}/run/database.sock",
            f"--port={ports[1]}", "--bind-address=127.0.0.1", f"--pid-file={base}/run/mariadbd.pid", f"--user={user}",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=900", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF",
        ],
        "mariadbd",
    )  # fmt: skip
    client = [find("mariadb") or "", "--no-defaults", f"--socket={base}/run/database.sock", "-uroot", "-e", SQL]
    _require(lambda: subprocess.run(client, capture_output=True, check=False).returncode == 0, base)
    spawn(["slurmdbd", "-D"], "slurmdbd")
    _require(lambda: _listens(ports[0]), base)
    for words in (["cluster", "sandbox"], ["account", ACCOUNT], ["user", getpass.getuser(), f"account={ACCOUNT}"]):
        # Without these entries no job is accepted; adding one that exists already is an error, which is ignored.
        subprocess.run([base / "bin/sacctmgr", "-i", "add", *words], capture_output=True, check=False)


def _require(condition: Callable[[], bool], base: Path) -> None:
    if not wait_until(condition, PATIENCE_S):
        raise JobError(f"accounting did not come up within {PATIENCE_S:.0f} s; its logs are in {base / 'log'}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
