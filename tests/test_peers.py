"""The adapters of published networks, on checkouts that only look like theirs."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import peer_networks
import pytest
import torch
from torch import Tensor

from ccsd.config import Config
from ccsd.errors import UsageError
from ccsd.model import Network, build_network
from ccsd.plugins.interface import Step
from support import ROOT
from support.tasks import FIVE, GLIOMA

LAYERS = "import torch\nfrom torch import nn\n"
SOFTMAX = """\
from layers import nn, torch

patch_size, input_patch_size = 8, 128


class Model(nn.Module):
    def __init__(self, num_cls=4, **given):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.num_cls, self.given, self.tokens, self.is_training = num_cls, given, patch_size, False

    def forward(self, x, mask):
        self.seen = x, mask
        b, m, *space = x.shape
        logits = torch.zeros(b, self.num_cls, *space)
        logits[:, 3] = 20 * x[:, 1] * mask[:, 1, None, None, None] * self.weight  # ET where t1ce is bright
        logits[:, 2] = 10 * x[:, 0] * mask[:, 0, None, None, None] * self.weight
        found = logits.softmax(1)
        return (found, (found,) * 4, (found, found)) if self.is_training else found
"""
DUAL = """\
from layers import nn, torch


class DualNet_SS(nn.Module):
    def __init__(self, args, norm_cfg, activation_cfg, num_classes, weight_std, self_att):
        super().__init__()
        self.norm = nn.InstanceNorm3d(1)
        self.modes = []

    def forward(self, images, mode):
        self.modes.append(mode)
        self.norm(images[:, :1, :1, :1, :1])  # a single voxel, as in its pooled branch
        return images[:, :3] + torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1), None, None, None
"""
FILES = {
    "rfnet": {"models.py": SOFTMAX},
    "mmformer": {"mmformer/mmformer.py": SOFTMAX},
    "imfuse": {"IMFuse/IMFuse.py": SOFTMAX.replace("class Model", "class IMFuse")},
    "shaspec": {"DualNet_SS.py": DUAL},
}
AVAILABLE = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 4, 32, 32, 32, generator=torch.Generator().manual_seed(0))


def checkout(peer: str, folder: Path) -> Path:
    for name, text in FILES[peer].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).with_name("layers.py").write_text(LAYERS)
    return folder


def built(peer: str, folder: Path, patch: int = 32) -> Network:
    raw = {"name": "x", "phantom": {}, "model": peer_networks.options(peer, checkout(peer, folder), patch)}
    return build_network(Config.model_validate(raw).model, GLIOMA)


@pytest.mark.parametrize("peer", ["rfnet", "mmformer", "imfuse"])
def test_sequences_masks_and_classes_are_theirs_and_regions_are_ours(peer: str, image: Tensor, tmp_path: Path) -> None:
    net: Any = built(peer, tmp_path).eval()
    logits = net.decode(net.encode(image, AVAILABLE), AVAILABLE[None], 1)[0]
    shown, mask = net.network.network.seen
    hidden = torch.where(AVAILABLE[..., None, None, None], image, 0)
    assert torch.equal(shown, hidden[:, [0, 2, 1, 3]])
    assert torch.equal(mask, AVAILABLE[:, [0, 2, 1, 3]])
    scores = torch.zeros(3, 4, 32, 32, 32)
    scores[:, 3], scores[:, 2] = 20 * hidden[:, 2], 10 * hidden[:, 0]
    p = scores.softmax(1)
    regions = torch.stack([p[:, 1:].sum(1), p[:, 1] + p[:, 3], p[:, 3]], 1)  # WT, TC, ET of NCR, ED, ET
    assert torch.allclose(logits.sigmoid(), regions, atol=1e-4)
    assert not logits.requires_grad or logits.isfinite().all()
    assert {"layers", "models", "mmformer", "IMFuse"}.isdisjoint(sys.modules)


def test_the_number_of_tokens_follows_the_patch(tmp_path: Path) -> None:
    net: Any = built("mmformer", tmp_path, 64)
    assert net.network.network.tokens == 4
    with pytest.raises(ValueError, match="built for patches of 64 x 64 x 64"):
        net.eval().segment(torch.zeros(1, 4, 32, 32, 32), AVAILABLE[:1])
    with pytest.raises(UsageError, match="multiples of 16 and at least 32, not 40"):
        built("mmformer", tmp_path, 40)


def test_shaspec_goes_sample_by_sample_with_its_order_of_outputs(image: Tensor, tmp_path: Path) -> None:
    net: Any = built("shaspec", tmp_path).eval()
    logits = net.decode(net.encode(image, AVAILABLE), AVAILABLE[None], 1)[0]
    assert net.network.network.modes == ["0,1,2,3", "0,1", "2,3"]
    hidden = torch.where(AVAILABLE[..., None, None, None], image, 0)
    assert torch.equal(logits, torch.stack([hidden[:, 1] + 2, hidden[:, 2] + 3, hidden[:, 0] + 1], 1))  # WT, TC, ET
    with pytest.raises(UsageError, match="multiples of 32, not 48"):
        built("shaspec", tmp_path, 48)


def test_all_outputs_are_supervised_with_one_mask_for_each_sample(image: Tensor, tmp_path: Path) -> None:
    net: Any = built("rfnet", tmp_path).train()
    target = torch.zeros(3, 3, 32, 32, 32)
    step = Step(image, target, AVAILABLE, 0, 1, tuple(np.random.default_rng(i) for i in range(3)))
    loss, terms = peer_networks.OneMask(GLIOMA)(net, step)
    assert torch.allclose(loss, 7 * terms["output"])  # the fused one, four modalities, two coarser ones
    shown, mask = net.network.network.seen
    assert torch.equal(shown, image[:, [0, 2, 1, 3]])
    assert bool((mask <= AVAILABLE[:, [0, 2, 1, 3]]).all())
    assert bool(mask.any(1).all())
    again = Step(image, target, AVAILABLE, 0, 1, tuple(np.random.default_rng(i) for i in range(3)))
    assert torch.equal(peer_networks.OneMask(GLIOMA).draw(again)[:, [0, 2, 1, 3]], mask)


@pytest.mark.parametrize("peer", FILES)
def test_what_is_no_checkout_is_rejected_with_its_address(peer: str, tmp_path: Path) -> None:
    raw = {"name": "x", "phantom": {}, "model": peer_networks.options(peer, tmp_path, 32)}
    with pytest.raises(UsageError, match=rf"^{peer}: .* cannot be imported .*use a clone of github\.com/"):
        build_network(Config.model_validate(raw).model, GLIOMA)


def test_what_a_checkout_needs_is_said(tmp_path: Path) -> None:
    (checkout("imfuse", tmp_path) / "IMFuse/IMFuse.py").write_text(textwrap.dedent("import mamba_ssm_of_nobody"))
    with pytest.raises(UsageError, match=r"mamba_ssm_of_nobody.* whose kernels run on CUDA GPUs only"):
        peer_networks.imfuse(GLIOMA, str(tmp_path), 32)


def test_another_task_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the network takes flair, t1ce, t1, t2, the task five has"):
        peer_networks.rfnet(FIVE, str(checkout("rfnet", tmp_path)), 32)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_the_script_prints_a_row_for_each_and_ours_for_its_time(tmp_path: Path) -> None:
    words = ["--peer", f"rfnet={checkout('rfnet', tmp_path / 'clone')}", "--work", tmp_path / "work", "--steps", "1"]
    command = [sys.executable, ROOT / "benchmarks/peers.py", *words, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *_, last = done.stdout.splitlines()
    assert json.loads(last)["ratio"] >= 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == ["ours, equal steps", "rfnet", "ours, the time of rfnet"]
    assert all(len(cell.split("/")) == 4 for row in rows[2:] for cell in row[5:])
