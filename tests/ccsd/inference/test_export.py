"""An exported program needs PyTorch only, and says the same as the model."""

import json
import subprocess
import sys

import pytest
import torch

from ccsd.errors import UsageError
from ccsd.inference.export import export
from ccsd.inference.window import subset_masks
from ccsd.model import load_model
from support.tasks import GLIOMA

ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load(sys.argv[2])), sys.argv[3])
assert not any(name.split(".")[0] in ("ccsd", "monai", "deepspeed", "preprocess") for name in sys.modules)
"""


@pytest.mark.slow
def test_exported_program_says_the_same_without_this_package(made_study, tmp_path):
    folder = made_study / "runs" / "ccsd-s0"
    written = export(folder, tmp_path / "model.pt2", "t1ce+flair")
    run = load_model(folder)
    image = torch.randn(1, 4, 24, 24, 24)
    torch.save(image[:, [0, 2]], tmp_path / "in.pt")
    files = [str(tmp_path / name) for name in ("model.pt2", "in.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = torch.sigmoid(run.net.segment(image, subset_masks([("flair", "t1ce")], GLIOMA))[0])

    assert written.difference < 1e-5
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected, rtol=0, atol=1e-5)


def test_exported_file_describes_itself(made_study, tmp_path):
    export(made_study / "runs" / "ccsd-s0", tmp_path / "model.pt2", "t2")
    found = {"ccsd.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=found)
    about = json.loads(found["ccsd.json"])

    assert "1 x 1 x 24 x 24 x 24: t2" in about["input"]
    assert "left to right; 1 x 1 x 1 mm" in about["input"]
    assert len(about["model_hash"]) == 64


def test_other_endings_are_rejected(made_study, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.pt2"):
        export(made_study / "runs" / "ccsd-s0", tmp_path / "model.onnx", "t2")
