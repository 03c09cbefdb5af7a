"""The DeepSpeed configuration and the learning rate, and options that change what a step costs, not what it learns."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ccsd import triton
from ccsd.config import Config, Runtime, Train
from ccsd.errors import UsageError
from ccsd.training import engine
from ccsd.training.engine import deepspeed_config, learning_rate, prepared_objective, require_device
from ccsd.training.zero_shards import Shard, state_of

CPU = torch.device("cpu")
SUBSETS = torch.tensor([[[True, True, True, True]], [[True, False, True, False]]])


def test_configuration_of_a_plain_run() -> None:
    assert deepspeed_config(Train(batch_size=4, clip=3), Runtime(zero_stage=1), 2, CPU) == {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 3,
        "zero_optimization": {
            "stage": 1,
            "reduce_bucket_size": 10_000_000,
            "allgather_bucket_size": 10_000_000,
            "overlap_comm": False,
        },
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def test_clipping_without_sharding_is_ours() -> None:
    assert deepspeed_config(Train(clip=3), Runtime(zero_stage=0), 1, CPU)["gradient_clipping"] == 0


def test_stage_three_is_tuned_for_small_networks() -> None:
    zero = deepspeed_config(Train(), Runtime(zero_stage=3), 1, CPU)["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["stage3_max_live_parameters"] == 10_000_000
    assert zero["stage3_param_persistence_threshold"] == 10_000


def test_offloading_is_spelt_out_for_deepspeed() -> None:
    host = {"device": "cpu", "pin_memory": True}
    zero = deepspeed_config(Train(), Runtime(zero_stage=2, offload="optimizer"), 1, CPU)["zero_optimization"]
    assert zero["offload_optimizer"] == host
    assert "offload_param" not in zero
    zero = deepspeed_config(Train(), Runtime(zero_stage=3, offload="all"), 1, CPU)["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == host


@pytest.mark.parametrize(("stage", "offload"), [(0, "optimizer"), (0, "all"), (1, "all"), (2, "all")])
def test_only_what_is_sharded_can_be_offloaded(stage: int, offload: str) -> None:
    with pytest.raises(ValidationError, match=f"runtime.offload {offload} needs runtime.zero_stage .*, not {stage}"):
        Runtime.model_validate({"zero_stage": stage, "offload": offload})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the rejection is for machines without a GPU")
def test_offloading_without_a_gpu_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"runtime\.offload=all moves state from a GPU .* use runtime\.offload=none"):
        require_device(Runtime(zero_stage=3, offload="all"))


def test_learning_rate_warms_up_and_decays() -> None:
    settings = Train(steps=1000, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 101)
    assert max(rates) == rates[100] == 1.0
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_a_cosine_falls_to_half_at_half_of_the_way() -> None:
    settings = Train(steps=1000, warmup=0.1, learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert max(rates) == rates[100] == 1.0
    assert rates[550] == pytest.approx(0.5, abs=2e-3)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert 0 < rates[-1] < 1e-4


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
    net = prepared_objective(config(**runtime), CPU).net.train()
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
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler .* use runtime.compile=false"):
        prepared_objective(config(compile=True), CPU)


def test_kernels_for_gpus_need_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("PATH", "")
    missing = triton.missing_for_triton.__wrapped__
    assert missing() == "a C compiler (gcc), which was not found"
    monkeypatch.setattr(triton.importlib.util, "find_spec", lambda _: None)
    assert "Triton" in missing()
    monkeypatch.setattr(engine, "missing_for_triton", missing)
    with pytest.raises(UsageError, match=r"runtime.compile needs Triton, .* use runtime.compile=false"):
        engine._check_compiler(torch.device("cuda"))


def test_gpus_exchange_gradients_beside_the_backward_pass() -> None:
    zero = deepspeed_config(Train(), Runtime(), 2, torch.device("cuda"))["zero_optimization"]
    assert zero["overlap_comm"]


def test_compiling_does_not_go_with_sharded_weights() -> None:
    with pytest.raises(ValueError, match=r"does not work with runtime\.zero_stage 3"):
        config(compile=True, zero_stage=3)


@pytest.mark.usefixtures("torch_as_it_was")
def test_deterministic_asks_torch_for_it() -> None:
    prepared_objective(config(), CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    prepared_objective(config(deterministic=True), CPU)
    assert torch.are_deterministic_algorithms_enabled()


def test_what_torch_cannot_do_deterministically_is_rejected() -> None:
    raw = {"name": "x", "phantom": {}, "model": {"backbone": "shaspec"}, "runtime": {"deterministic": True}}
    wanted = Config.model_validate(raw)
    with pytest.raises(UsageError, match=r"use model\.backbone=light"):
        prepared_objective(wanted, torch.device("cuda"))


@pytest.mark.parametrize(("fused", "where"), [(True, "meta"), (False, "cpu")])
def test_a_fused_optimizer_resumes_with_its_count_on_the_device(fused: bool, where: str) -> None:
    """torch rejects to update by a fused optimizer whose count of steps lies on the host."""
    flat = torch.nn.Parameter(torch.zeros(4, device="meta"))
    optimizer = torch.optim.AdamW([{"params": [flat], "ema": 0}])
    optimizer.defaults["fused"] = fused
    engine = SimpleNamespace(optimizer=optimizer, zero_optimization_stage=lambda: 0)
    state = state_of(engine, Shard("w", 0, 4, flat, 0))
    assert state["step"].device.type == where
    assert state["exp_avg"].device.type == "meta"
