"""Options that change what a step costs, and not what it learns."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ccsd.config import Config
from ccsd.errors import UsageError
from ccsd.training.engine import prepared_net

CPU = torch.device("cpu")
SUBSETS = torch.tensor([[[True, True, True, True]], [[True, False, True, False]]])


def config(**runtime: object) -> Config:
    return Config.model_validate(
        {
            "name": "x",
            "phantom": {},
            "model": {"width": 4, "levels": 3},
            "train": {"patch": (8, 8, 8)},
            "runtime": runtime,
        }
    )


def gradients(**runtime: object) -> dict[str, Tensor]:
    net = prepared_net(config(**runtime), CPU).train()
    image = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    net.decode(net.encode(image), SUBSETS, 8).square().mean().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_activation_checkpointing_keeps_the_gradients() -> None:
    plain, again = gradients(), gradients(activation_checkpointing=True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiling_keeps_names_and_gradients() -> None:
    plain, compiled = gradients(), gradients(compile=True)
    assert plain.keys() == compiled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, compiled[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"install g\+\+ or use runtime.compile=false"):
        prepared_net(config(compile=True), CPU)


def test_compiling_does_not_go_with_sharded_weights() -> None:
    with pytest.raises(ValueError, match=r"does not work with runtime\.zero_stage 3"):
        config(compile=True, zero_stage=3)


@pytest.mark.usefixtures("torch_as_it_was")
def test_deterministic_asks_torch_for_it() -> None:
    prepared_net(config(), CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    prepared_net(config(deterministic=True), CPU)
    assert torch.are_deterministic_algorithms_enabled()


def test_what_torch_cannot_do_deterministically_is_refused() -> None:
    wanted = Config.model_validate(
        {"name": "x", "phantom": {}, "model": {"backbone": "shaspec"}, "runtime": {"deterministic": True}}
    )
    with pytest.raises(UsageError, match=r"use model\.backbone=unet"):
        prepared_net(wanted, torch.device("cuda"))
