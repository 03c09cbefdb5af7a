"""What the network does on a GPU, seen without one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccsd.config import Model
from ccsd.model import SharedSpecificNet, blocks, normalise
from ccsd.model.blocks import Conv, MeanConv, Norm, mean_pool
from ccsd.model.layout import beside, channels_last, folded, unfolded
from ccsd.model.normalise import activated_norm
from support.kernels import by_kernels, distance, go_the_way_of_gpus
from support.tasks import GLIOMA


@pytest.mark.parametrize("backbone", ["light", "unet"])
def test_any_width_makes_a_network(backbone: str) -> None:
    with torch.device("meta"):
        for width in range(1, 65):
            SharedSpecificNet(Model.model_validate({"backbone": backbone, "width": width, "levels": 3}), GLIOMA)


def test_groups_of_the_norm_have_about_eight_channels() -> None:
    assert [Norm(channels).num_groups for channels in (8, 16, 14, 28, 4, 7)] == [1, 2, 1, 2, 1, 1]
    assert Norm(4 * 28, groups=4).num_groups == 4 * 2


def test_the_pooling_of_gpus_is_that_of_cpus(monkeypatch) -> None:
    class OfGpu(torch.Tensor):
        device = torch.device("meta")

    x = torch.randn(2, 3, 4, 6, 8, requires_grad=True)
    found, wanted = mean_pool(x.as_subclass(OfGpu), 2), functional.avg_pool3d(x, 2)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted)
    weights = torch.randn_like(wanted)
    first, second = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found.as_subclass(torch.Tensor), wanted))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_what_is_put_beside_each_other(channels: int, count: int) -> None:
    x = torch.randn(2 * count, channels, 3, 4, 5).requires_grad_()
    for ordered in (x, channels_last(x)):
        joined = beside(ordered, count)
        torch.testing.assert_close(joined, x.reshape(2, count * channels, 3, 4, 5))
        weights = torch.randn_like(joined)
        (gradient,) = torch.autograd.grad((joined * weights).sum(), x)
        assert torch.equal(gradient, weights.reshape(x.shape))


@pytest.mark.parametrize(
    ("conv", "width", "folds"),
    [
        (Conv(16, 16, 3, padding=1), 16, 4),
        (Conv(32, 32, 3, padding=1, bias=False), 6, 2),
        (Conv(8, 16, 3, 2, padding=1), 16, 4),
        (Conv(1, 8, 3, 2, padding=1), 32, 8),
        (Conv(16, 3, 1), 12, 4),
        (Conv(12, 20, 3, padding=1), 6, 2),
        (Conv(2 * 8, 2 * 8, 3, padding=1, groups=2), 8, 8),
        (MeanConv(16, 32, 2, 1), 8, 2),
        (MeanConv(2 * 1, 2 * 16, 1, 2), 8, 4),
        (Conv(16, 16, 3, padding=1), 18, 4),  # which four do not divide
        (Conv(32, 48, 3, padding=1), 6, 1),
    ],
)
def test_a_folded_convolution_is_that_of_cpus(
    conv: Conv, width: int, folds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = conv.double()
    assert (1 if conv.taps is None else conv.taps.shape[1]) == folds
    x = torch.randn(2, conv.in_channels, 4, 6, width, dtype=torch.float64).requires_grad_()
    wanted = conv(x)
    weights = torch.randn_like(wanted)
    wanted_gradients = torch.autograd.grad((wanted * weights).sum(), [x, *conv.parameters()])
    monkeypatch.setattr(blocks, "on_gpu", lambda _: True)
    found = conv(x)
    torch.testing.assert_close(found, wanted)
    for value, right in zip(
        torch.autograd.grad((found * weights).sum(), [x, *conv.parameters()]), wanted_gradients, strict=True
    ):
        torch.testing.assert_close(value, right)


def test_folding_moves_nothing() -> None:
    x = channels_last(torch.randn(2, 16, 3, 4, 8))
    blocks_of_four = folded(x, 4)
    assert blocks_of_four.shape == (2, 64, 3, 4, 2)
    assert unfolded(blocks_of_four, 4).data_ptr() == blocks_of_four.data_ptr() == x.data_ptr()
    assert torch.equal(blocks_of_four[:, 16:32], x[..., 1::4])
    assert torch.equal(unfolded(blocks_of_four, 4), x)


@pytest.mark.parametrize("slope", [0.01, 1.0])
@pytest.mark.parametrize("is_added", [False, True])
@pytest.mark.parametrize("shape", [(2, 16, 4, 5, 6), (1, 8, 3, 3, 3), (2, 48, 2, 2, 2)])
def test_the_activated_norm_is_that_of_torch(shape: tuple[int, ...], is_added: bool, slope: float) -> None:
    groups = shape[1] // 8
    x, added, weight, bias = torch.randn(shape) + 2, torch.randn(shape), torch.randn(shape[1]), torch.randn(shape[1])
    x[:, 0] *= 30
    ours, torchs = ([t.clone().requires_grad_() for t in (x, weight, bias, added)] for _ in range(2))
    found = activated_norm(ours[0], ours[3] if is_added else None, groups, *ours[1:3], 1e-5, slope)
    wanted = functional.group_norm(torchs[0], groups, *torchs[1:3], 1e-5)
    wanted = functional.leaky_relu(wanted + torchs[3] if is_added else wanted, slope)
    torch.testing.assert_close(found, wanted)
    weights, count = torch.randn_like(wanted), 4 if is_added else 3
    for ours_grad, torchs_grad in zip(
        torch.autograd.grad(found, ours[:count], weights),
        torch.autograd.grad(wanted, torchs[:count], weights),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, torchs_grad, rtol=1e-4, atol=1e-4)


def test_the_norm_of_gpus_keeps_the_type_and_is_that_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = Norm(16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 16, 4, 4, 4).bfloat16()
    wanted = norm(x.float())
    monkeypatch.setattr(blocks, "on_gpu", lambda _: True)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0.02)


def gradients(
    settings: dict[str, object], side: int, sets: list[list[int]], dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits of sets of sequences of two samples, and the gradients of everything."""
    torch.manual_seed(0)
    net = SharedSpecificNet(Model.model_validate(settings), GLIOMA)
    for module in net.modules():
        if isinstance(module, Norm):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    net, image = net.to(dtype), torch.randn(2, 4, 16, side, side).to(dtype)
    subsets = torch.tensor(sets, dtype=torch.bool)[:, None].expand(-1, 2, -1)
    logits = net.decode(net.encode(image), subsets, 8)
    (logits * torch.randn_like(logits)).sum().backward()
    return logits.detach(), {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


PLAIN = {"width": 8, "levels": 3}
DEEP = {"width": 4, "levels": 4, "deep_supervision": True}


@pytest.mark.parametrize(
    ("settings", "side", "count", "kernels"),
    [
        (PLAIN, 8, 1, False),
        (PLAIN, 8, 4, False),
        (DEEP, 16, 3, False),
        ({"backbone": "unet", **PLAIN}, 8, 4, False),
        pytest.param({"backbone": "shaspec"}, 32, 2, False, marks=pytest.mark.exhaustive),  # 188 M parameters
        pytest.param(PLAIN, 8, 4, True, marks=pytest.mark.slow),
        pytest.param(DEEP, 16, 3, True, marks=pytest.mark.slow),
    ],
)
def test_the_network_of_gpus_is_that_of_cpus(
    settings: dict[str, object], side: int, count: int, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels:
        by_kernels("ccsd.model.norm_kernels")
    sets = [[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 1, 1]][:count]
    dtype = torch.float32 if kernels else torch.float64  # which small maps need: their gradients are huge
    wanted, wanted_gradients = gradients(settings, side, sets, dtype)
    go_the_way_of_gpus(monkeypatch)
    monkeypatch.setattr(normalise, "by_triton", lambda _: kernels)
    found, found_gradients = gradients(settings, side, sets, dtype)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert found_gradients.keys() == wanted_gradients.keys()
    # In float32, rounding may change the sign of a voxel before a rectifier, and with it much of its gradient.
    close = 0.03 if kernels else 1e-6
    far = {name: distance(found_gradients[name], value) for name, value in wanted_gradients.items()}
    assert not {name: share for name, share in far.items() if share > close}


@pytest.mark.parametrize("backbone", ["light", "unet"])
@pytest.mark.parametrize("encoded", [(0, 1, 2, 3), (1, 3)])
def test_specific_encoders_one_by_one_are_those_in_groups(
    backbone: str, encoded: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = SharedSpecificNet(Model.model_validate({"backbone": backbone, **PLAIN}), GLIOMA).double().eval()
    image = torch.randn(2, len(encoded), 16, 8, 8, dtype=torch.float64)
    wanted = net.encode_specific(image, encoded)
    go_the_way_of_gpus(monkeypatch)
    torch.testing.assert_close(net.encode_specific(image, encoded), wanted)
    net.one_by_one = False
    torch.testing.assert_close(net.encode_specific(image, encoded), wanted)
