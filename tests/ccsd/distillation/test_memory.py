"""Peak memory of a step, counted on tensors without contents: exact, and free of the machine's noise."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from ccsd.config import Model
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet
from support.distilling import every_set
from support.tasks import GLIOMA

AVAILABLE = torch.ones(1, 4, dtype=torch.bool)
SIDE = 64


def peak(method: str, decode_batch: int = 8, *, recompute: bool = False) -> float:
    """Return the peak of forward and backward in MiB, weights included."""
    settings = every_set(method=method)
    draw = draw_step(settings, GLIOMA, AVAILABLE, seed=0, step=0, total_steps=1, samples=[0])
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = SharedSpecificNet(Model(width=8, levels=4), GLIOMA)
        if recompute:
            net.recompute_encoders()
        objective = Objective(net, settings, GLIOMA, decode_batch=decode_batch)
        tracker = MemTracker()
        tracker.track_external(objective)
        with tracker:
            image, label = torch.zeros(1, 4, SIDE, SIDE, SIDE), torch.zeros(1, SIDE, SIDE, SIDE, dtype=torch.uint8)
            objective(image, label, AVAILABLE, draw)["loss"].backward()
        (memory,) = tracker.get_tracker_snapshot("peak").values()
    return float(memory["Total"]) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hmsd", "ccsd"])
def test_decoding_one_by_one_peaks_at_one_decoder(method: str) -> None:
    """Beyond a step that decodes the full set alone there are only logits and what the losses keep of them."""
    voxels = SIDE**3 * 3 * 4 / 2**20
    visited = {"hmsd": 3, "ccsd": 6}[method]
    kept_per_subset = 10 * voxels
    alone, one_by_one, together = peak("full"), peak(method, decode_batch=1), peak(method)
    assert one_by_one < alone + visited * kept_per_subset
    assert together > one_by_one + (visited - 1) * kept_per_subset


@pytest.mark.slow
def test_computing_encoders_again_takes_less() -> None:
    assert peak("full", recompute=True) < 0.75 * peak("full")
