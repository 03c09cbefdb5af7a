"""The tests of the method's invariants can fail: each is run against a copy of the code that breaks its invariant."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Sabotage(NamedTuple):
    """One change of one file, and the tests that must notice it."""

    file: str
    before: str
    after: str
    tests: str


SABOTAGES = {
    "absent images reach the encoders": Sabotage(
        "ccsd/model/net.py", "torch.where(available[..., None, None, None], image, 0)", "image + 0",
        "tests/ccsd/model/test_net.py::test_nothing_absent_reaches_the_output",
    ),
    "the mean is taken over all modalities": Sabotage(
        "ccsd/model/compose.py", "chosen / chosen.sum(-1, keepdim=True)", "torch.full_like(chosen, 1 / 4)",
        "tests/ccsd/model/test_net.py::test_a_subset_of_what_is_available_ignores_the_rest",
    ),
    "samples of a batch are mixed": Sabotage(
        "ccsd/model/net.py", "shared = shared.unflatten(0, (-1, count))",
        "shared = shared.unflatten(0, (-1, count))\n        shared[1:] = shared[:1]",
        "tests/ccsd/model/test_net.py::test_permuting_the_batch_commutes",
    ),
    "rounds of decoding leave out a subset": Sabotage(
        "ccsd/model/network.py", "for part in torch.split(subsets, decode_batch):",
        "for part in torch.split(subsets.roll(decode_batch == 4, 0), decode_batch):",
        "tests/ccsd/model/test_net.py::test_decoding_in_rounds_changes_nothing",
    ),
    "distillation changes the full set's forward pass": Sabotage(
        "ccsd/distillation/objective.py", "features = self.net.encode(image, available)",
        "features = self.net.encode(image * (1 + 1e-3 * len(draw.visited)), available)",
        "tests/ccsd/distillation/test_objective.py::test_the_full_set_is_the_same_with_and_without_distillation",
    ),
    "teachers are not detached": Sabotage(
        "ccsd/distillation/losses.py", "teacher.detach()", "teacher",
        "tests/ccsd/distillation/test_losses.py::test_no_gradient_reaches_the_teacher "
        "tests/ccsd/distillation/test_objective.py::test_hmsd_gives_the_full_set_no_gradient "
        "tests/ccsd/distillation/test_objective.py::test_dmcd_teaches_only_downwards",
    ),
    "the divergence is no divergence": Sabotage(
        "ccsd/distillation/losses.py", "p * (functional.logsigmoid(t) - ", "p * (-",
        "tests/ccsd/distillation/test_losses.py::test_divergence_of_equal_logits_is_zero",
    ),
    "the divergence takes logarithms of probabilities": Sabotage(
        "ccsd/distillation/losses.py", "functional.logsigmoid(s))\n", "s.sigmoid().log())\n",
        "tests/ccsd/distillation/test_losses.py::test_divergence_is_finite_at_the_extremes_in_bf16",
    ),
    "the path removes the least critical": Sabotage(
        "ccsd/distillation/path.py", "scores.masked_fill(", "(-scores).masked_fill(",
        "tests/ccsd/distillation/test_path.py::test_the_path_removes_the_most_critical_first",
    ),
    "the criterion prefers what helps": Sabotage(
        "ccsd/distillation/objective.py", "rise = measured - self.loss", "rise = self.loss - measured",
        "tests/ccsd/distillation/test_objective.py::test_the_criterion_removes_what_raises_the_loss_most",
    ),
    "a combination is missing": Sabotage(
        "preprocess/task_file.py", '("3", "2", "1", "0", "23",', '("3", "2", "1", "1", "23",',
        "tests/preprocess/test_task.py::test_fifteen_combinations_unique_and_in_the_order_of_the_field",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_broken_invariant_is_noticed(name: str, tmp_path: Path) -> None:
    file, before, after, tests = SABOTAGES[name]
    for part in ("ccsd", "cluster", "preprocess", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert text.count(before) >= 1, f"{file} has changed; {before!r} is no longer in it"
    (tmp_path / file).write_text(text.replace(before, after, 1), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests.split()],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    noticed = {line.split("[")[0].split(" - ")[0] for line in re.findall(r"^FAILED (.*)$", done.stdout, re.MULTILINE)}
    named = [test for test in tests.split() if "::" in test]
    assert noticed >= set(named), done.stdout
