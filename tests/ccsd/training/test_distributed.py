"""Rank and rendezvous from the environment of each launcher."""

import pytest

from ccsd.errors import UsageError
from ccsd.training.distributed import PORTS, RankEnvironment, from_srun, rank_environment

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def hosts(nodes: str) -> list[str]:
    assert nodes == "node[1-2]"
    return ["node1", "node2"]


def test_alone_without_a_launcher() -> None:
    assert rank_environment({}) == RankEnvironment(0, 1, 0, 1)


def test_torchrun() -> None:
    assert rank_environment(TORCHRUN | MEETING) == RankEnvironment(5, 8, 1, 4)


def test_a_bare_srun_gives_the_same_variables() -> None:
    added = from_srun(SRUN, hosts)
    port = int(added.pop("MASTER_PORT"))
    assert port in PORTS
    assert added == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node1",
    }
    assert from_srun(SRUN | {"SLURM_JOB_ID": "78"}, hosts)["MASTER_PORT"] != str(port)


@pytest.mark.parametrize(
    "more", [{"SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "0"}, {"WORLD_SIZE": "1"}, {"SLURM_PTY_PORT": "38987"}]
)
def test_nothing_is_added_to_one_task_a_terminal_or_another_launcher(more: dict[str, str]) -> None:
    assert from_srun(SRUN | more, hosts) == {}


def test_nothing_is_added_in_a_batch_script() -> None:
    assert from_srun({"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, hosts) == {}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "x"}, "RANK is 'x'; expected a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2; RANK must be below"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 but RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n"}, "but MASTER_PORT is not set"),
    ],
)
def test_contradictions_are_rejected(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rank_environment(environment)
