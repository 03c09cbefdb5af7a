"""What a step of the default size moves and holds on a GPU, counted under CUDA's rules; `benchmarks/counting.py`."""

import pytest
from counting import Step, float32_on_cuda


def test_torch_still_says_what_cuda_computes_in_float32() -> None:
    assert {"group_norm", "binary_cross_entropy_with_logits", "pow"} <= float32_on_cuda()
    assert not {"leaky_relu", "add", "baddbmm", "conv3d"} & float32_on_cuda()


@pytest.mark.slow
def test_a_step_moves_less_than_40_gb_before_fusion() -> None:
    moved, kernels = Step().mean_traffic()
    assert 30e9 < moved < 40e9
    assert kernels < 1700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "gib"),
    [
        (Step(), 4.5),
        (Step(decode_batch=1), 4),
        (Step(decode_batch=1, recompute=True), 3),
    ],
)
def test_a_step_holds_no_more_than_the_docs_say(step: Step, gib: float) -> None:
    assert gib / 2 < step.peak_gib() < gib
