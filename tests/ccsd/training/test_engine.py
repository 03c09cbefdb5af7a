"""The DeepSpeed configuration and the learning rate, as pure functions."""

import pytest
import torch
from pydantic import ValidationError

from ccsd.config import Runtime, Train
from ccsd.errors import UsageError
from ccsd.training.engine import deepspeed_config, learning_rate, require_device, samples_per_process


def test_configuration_of_a_plain_run() -> None:
    assert deepspeed_config(Train(batch_size=4, clip=0), Runtime(zero_stage=1), world=2) == {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 0,
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


def test_stage_three_is_tuned_for_small_networks() -> None:
    zero = deepspeed_config(Train(), Runtime(zero_stage=3), world=1)["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["stage3_max_live_parameters"] == 10_000_000
    assert zero["stage3_param_persistence_threshold"] == 10_000


def test_offloading_is_spelt_out_for_deepspeed() -> None:
    host = {"device": "cpu", "pin_memory": True}
    zero = deepspeed_config(Train(), Runtime(zero_stage=2, offload="optimizer"), world=1)["zero_optimization"]
    assert zero["offload_optimizer"] == host
    assert "offload_param" not in zero
    zero = deepspeed_config(Train(), Runtime(zero_stage=3, offload="all"), world=1)["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == host


@pytest.mark.parametrize(("stage", "offload"), [(0, "optimizer"), (0, "all"), (1, "all"), (2, "all")])
def test_only_what_is_sharded_can_be_offloaded(stage: int, offload: str) -> None:
    with pytest.raises(ValidationError, match=f"runtime.offload {offload} needs runtime.zero_stage .*, not {stage}"):
        Runtime.model_validate({"zero_stage": stage, "offload": offload})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is for machines without a GPU")
def test_offloading_without_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match=r"runtime\.offload=all moves state from a GPU .* use runtime\.offload=none"):
        require_device(Runtime(zero_stage=3, offload="all"))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UsageError, match=r"batch_size 3 cannot be shared by 2 processes; use a multiple of 2"):
        samples_per_process(3, world=2)


def test_learning_rate_warms_up_and_decays() -> None:
    settings = Train(steps=1000, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 101)
    assert max(rates) == rates[100] == 1.0
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert 0 < rates[-1] < 0.01
