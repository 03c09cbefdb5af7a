"""An installation without extras converts, predicts and evaluates; other commands report what to install."""

import subprocess
import sys

import pytest

from ccsd import extras
from ccsd.errors import UsageError

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
ALL = {name for names in extras.EXTRAS.values() for name in names}


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    program = HIDE.format(hidden=ALL) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_command_can_be_imported_without_extras() -> None:
    modules = [
        "cluster.launch", "cluster.snakemake.trial", "ccsd.doctor", "ccsd.evaluation.run", "ccsd.inference.predict",
        "ccsd.report.page", "ccsd.evaluation.folders", "ccsd.api", "preprocess.convert", "preprocess.audit",
    ]  # fmt: skip
    done = without_extras("\n".join(f"import {name}" for name in modules))
    assert done.returncode == 0, done.stderr
    assert without_extras("import submitit").returncode == 1  # they were really hidden


def test_a_missing_extra_is_one_message_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require("train", "`ccsd train`")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "submitit" else name)
    with pytest.raises(
        UsageError, match=r"installed: submitit, which `ccsd train` needs; run `pip install '\.\[train\]'"
    ):
        extras.require("train", "`ccsd train`")
    extras.require("workflow", "`--profile`")
