"""The invariants of the network: absent input never reaches an output, subsets and samples do not interfere."""

import pytest
import torch
from torch import Tensor

from ccsd.config import Model
from ccsd.model import SharedSpecificNet
from preprocess.modalities import MODALITIES, all_subsets, subset

SIZE = (8, 16, 8)


def mask(names: str) -> Tensor:
    return torch.tensor([m in subset(names) for m in MODALITIES])


ALL_MASKS = torch.stack([mask("+".join(s)) for s in all_subsets()])


@pytest.fixture
def net() -> SharedSpecificNet:
    torch.manual_seed(0)
    return SharedSpecificNet(Model(width=8, levels=3)).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(1))


def test_number_of_parameters() -> None:
    net = SharedSpecificNet(Model())
    assert sum(p.numel() for p in net.parameters()) == 26_844_247


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
