"""What the throw-away cluster tells a shell."""

import shlex
import sys
from pathlib import Path

import pytest

from ccsd.device import choose_device
from cluster.rendezvous import GPUS
from cluster.sandbox.__main__ import main


def test_a_job_that_is_given_a_pretended_gpu_computes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sandbox", "env", "/tmp/ccsd-slurm"])
    main()
    lines = [shlex.split(line.removeprefix("export "))[0] for line in capsys.readouterr().out.splitlines()]
    variables = dict(line.split("=", 1) for line in lines)
    assert Path(variables["PATH"].split(":")[0]) == Path("/tmp/ccsd-slurm/bin")
    monkeypatch.setenv(GPUS, "2")
    assert choose_device(variables["CCSD_DEVICE"]).type == "cpu"


def test_a_cluster_that_was_never_started_cannot_be_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["sandbox", "down", str(tmp_path)])
    with pytest.raises(SystemExit, match="no cluster was started there"):
        main()
