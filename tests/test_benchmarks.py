"""Scripts of `benchmarks/` work: the check of a GPU where there is none, the proof that a refactoring owes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import same_losses
import torch
from network_variants import LightVariant

from ccsd.config import Model, load_config
from ccsd.model import SharedSpecificNet, build_network
from support.tasks import GLIOMA

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_check_of_a_gpu_runs_and_writes_what_it_found(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "benchmarks/gpu_check.py", "--device", "cpu", "--tiny", "--no-tests"]
    result = subprocess.run([*words, "--out", "found"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    found = json.loads((tmp_path / "found/gpu-check.json").read_text())
    (row,) = found["steps"]
    assert row["name"] == "light"
    assert row["step_s"] > 0
    assert row["tflop"] > 0
    assert row["costs"]
    assert {"step_s", "forward", "backward", "update"} <= found["training"].keys()
    assert found["evaluation"]["combinations"] == 15
    assert found["evaluation"]["case_s"] > 0
    assert "| light |" in (tmp_path / "found/gpu-check.md").read_text()


@pytest.mark.slow
def test_a_change_of_what_is_learnt_is_seen_and_an_unchanged_training_is_the_same(tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    for package in ("ccsd", "cluster", "preprocess"):
        shutil.copytree(ROOT / package, changed / package)
    losses = changed / "ccsd/distillation/losses.py"
    text = losses.read_text()
    assert "dice = 1 - 2 * overlap" in text
    losses.write_text(text.replace("dice = 1 - 2 * overlap", "dice = 1 - 2.00001 * overlap"))
    (tmp_path / "study.yaml").write_text(same_losses.SMALL)
    for words in (
        ("phantom", "cases", "--cases", "4", "--size", "32"),
        ("convert", "cases", "data"),
        ("split", "data"),
    ):
        same_losses.ccsd(ROOT, tmp_path, *words)
    first, again, other = (
        same_losses.learnt(code, tmp_path, "run", ["train.steps=10"]) for code in (ROOT, ROOT, changed)
    )
    assert first == again
    assert "step 10" in first
    assert "from step 10 on" in same_losses.difference(first, other)
    assert first["weights"] != other["weights"]


def test_the_variants_of_light_differ_from_light_only_in_what_their_options_say() -> None:
    settings = Model(width=8, levels=3)
    ours = SharedSpecificNet(settings, GLIOMA)
    same = LightVariant(GLIOMA, width=8, levels=3)
    with torch.no_grad():
        for mine, theirs in zip(same.parameters(), ours.parameters(), strict=True):
            mine.copy_(theirs)
        image, subsets = torch.randn(1, 4, 8, 8, 8), torch.tensor([[[True, False, True, False]]])
        available = torch.ones(1, 4, dtype=torch.bool)
        (logits,) = same.decode(same.compose(same.encode(image, available), subsets))
        torch.testing.assert_close(logits, ours.decode(ours.encode(image), subsets, 1))


@pytest.mark.slow
def test_every_network_of_the_comparison_can_be_built() -> None:
    pytest.importorskip("monai", reason="a tool of development")
    path = ROOT / "config/networks.yaml"
    configs = [load_config(path, experiment=name) for name in load_config(path).experiments]
    with torch.device("meta"):
        sizes = {sum(p.numel() for p in build_network(c.model, c.task).parameters()) for c in configs}
    assert len(sizes) == len(configs)
