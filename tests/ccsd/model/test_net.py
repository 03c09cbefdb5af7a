"""The invariants of the network: absent input never reaches an output, subsets and samples do not interfere."""

import pytest
import torch
from torch import Tensor

from ccsd.config import Model
from ccsd.model import SharedSpecificNet
from support.tasks import GLIOMA

SIZE = (8, 16, 8)


def mask(names: str) -> Tensor:
    return torch.tensor([m in GLIOMA.subset(names) for m in GLIOMA.modalities])


ALL_MASKS = torch.stack([mask(name) for name in GLIOMA.subset_names])


@pytest.fixture
def net() -> SharedSpecificNet:
    torch.manual_seed(0)
    return SharedSpecificNet(Model(width=8, levels=3), GLIOMA).eval()


@pytest.fixture
def shaspec(monkeypatch: pytest.MonkeyPatch) -> SharedSpecificNet:
    """The large backbone with an eighth of its channels."""
    for name, value in {
        "STEM": 8, "PLANES": (8, 16, 32, 40), "BLOCKS": (2, 1, 1, 1), "BOTTLENECK": 32,
        "SKIPS": (8, 32, 64, 128), "UP": (8, 8, 16, 32),
    }.items():  # fmt: skip
        monkeypatch.setattr(f"ccsd.model.shaspec.{name}", value)
    torch.manual_seed(0)
    return SharedSpecificNet(Model(backbone="shaspec"), GLIOMA).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("backbone", "millions"), [("light", 22.292), ("unet", 26.844), ("shaspec", 187.708)])
def test_number_of_parameters(backbone: str, millions: float) -> None:
    with torch.device("meta"):
        net = SharedSpecificNet(Model(backbone=backbone), GLIOMA)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)


def test_parts_of_shaspec_have_the_published_sizes() -> None:
    """35.13 M an encoder, 8.53 M the decoder: counted in the published network."""
    with torch.device("meta"):
        net = SharedSpecificNet(Model(backbone="shaspec"), GLIOMA)
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in net.named_children()}
    assert sizes["shared"] == pytest.approx(35.13, abs=0.005)
    assert sizes["specific"] == pytest.approx(4 * 35.13, abs=0.02)
    assert sizes["decoder"] == pytest.approx(8.53, abs=0.005)


@pytest.mark.parametrize("name", ["t1ce", "flair+t2", "flair+t1+t1ce"])
def test_nothing_absent_reaches_the_output(net: SharedSpecificNet, image: Tensor, name: str) -> None:
    available = mask(name).expand(2, -1)
    poisoned = torch.where(available[..., None, None, None], image, torch.nan)
    expected = net.decode(net.encode(image, available), available[None], 8)
    result = net.decode(net.encode(poisoned, available), available[None], 8)
    assert torch.equal(result, expected)
    assert torch.isfinite(result).all()


def test_a_subset_of_what_is_available_ignores_the_rest(net: SharedSpecificNet, image: Tensor) -> None:
    everything = torch.ones(2, 4, dtype=torch.bool)
    changed = image.clone()
    changed[:, 2] += 100
    wanted = mask("flair+t2").expand(1, 2, -1)
    before = net.decode(net.encode(image, everything), wanted, 8)
    after = net.decode(net.encode(changed, everything), wanted, 8)
    assert torch.equal(before, after)


def test_all_fifteen_differ(net: SharedSpecificNet, image: Tensor) -> None:
    logits = net.segment(image, ALL_MASKS)
    distance = torch.cdist(logits[:, 0].flatten(1), logits[:, 0].flatten(1))
    assert (distance + 1e3 * torch.eye(15)).min() > 1e-4


@pytest.mark.parametrize("name", ["t2", "flair+t1ce", "flair+t1+t1ce+t2"])
def test_encoding_only_what_is_needed_changes_nothing(net: SharedSpecificNet, image: Tensor, name: str) -> None:
    everything = net.encode(image)
    expected = net.decode(everything, mask(name).expand(1, 2, -1), 8)
    result = net.segment(torch.where(mask(name)[:, None, None, None], image, torch.nan), mask(name)[None])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_partial_encoders_follow_the_weights(net: SharedSpecificNet, image: Tensor) -> None:
    only = mask("t1")[None]
    before = net.segment(image, only)
    net.train()
    with torch.no_grad():
        for parameter in net.specific.parameters():
            parameter.add_(0.1)
    net.eval()
    assert not torch.allclose(net.segment(image, only), before)


def test_permuting_the_batch_commutes(net: SharedSpecificNet, image: Tensor) -> None:
    torch.testing.assert_close(net.segment(image.flip(0), ALL_MASKS), net.segment(image, ALL_MASKS).flip(1))


@pytest.mark.parametrize("decode_batch", [1, 4, 15])
def test_decoding_in_rounds_changes_nothing(net: SharedSpecificNet, image: Tensor, decode_batch: int) -> None:
    torch.testing.assert_close(net.segment(image, ALL_MASKS, decode_batch), net.segment(image, ALL_MASKS, 15))


def test_recomputing_keeps_the_gradients(net: SharedSpecificNet, image: Tensor) -> None:
    def gradients(*, decode_batch: int, recompute: bool) -> list[Tensor]:
        net.zero_grad()
        subsets = ALL_MASKS[:, None].expand(-1, 2, -1)
        net.decode(net.encode(image), subsets, decode_batch, recompute=recompute).square().mean().backward()
        return [p.grad.clone() for p in net.decoder.parameters() if p.grad is not None]

    together = gradients(decode_batch=15, recompute=False)
    one_by_one = gradients(decode_batch=1, recompute=True)
    for a, b in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_maps_of_one_voxel_train(net: SharedSpecificNet) -> None:
    net.train()
    logits = net.segment(torch.randn(1, 4, 4, 4, 4), ALL_MASKS)
    logits.mean().backward()
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", ["t2", "flair+t1ce"])
def test_shaspec_keeps_modalities_apart_and_encodes_only_what_is_needed(shaspec: SharedSpecificNet, name: str) -> None:
    image = torch.randn(1, 4, 16, 32, 32)
    everything = shaspec.encode(image)
    expected = shaspec.decode(everything, mask(name).expand(1, 1, -1), 8)
    result = shaspec.segment(torch.where(mask(name)[:, None, None, None], image, torch.nan), mask(name)[None])
    assert result.shape == (1, 1, 3, 16, 32, 32)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


def test_shaspec_learns(shaspec: SharedSpecificNet) -> None:
    shaspec.train()
    shaspec.segment(torch.randn(1, 4, 16, 32, 32), ALL_MASKS).square().mean().backward()
    missing = [name for name, p in shaspec.named_parameters() if p.grad is None]
    assert missing == ["classify.weight", "classify.bias"]


def test_standardised_filters_have_mean_0_and_deviation_1() -> None:
    from ccsd.model.shaspec import StandardConv

    conv = StandardConv(3, 2, 1, bias=False)
    filters = conv(torch.eye(3).view(3, 3, 1, 1, 1)).view(3, 2)
    torch.testing.assert_close(filters.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(filters.std(0), torch.ones(2))
