"""What is compiled: without breaks, one graph for each shape that a step has, and the same numbers."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from ccsd.config import Distillation, Model
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet
from support.distilling import every_set
from support.kernels import go_the_way_of_gpus
from support.tasks import GLIOMA

AVAILABLE = torch.ones(2, 4, dtype=torch.bool)
SIDE = 16
pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own
GRAPHS = {
    # shared and specific encoder; decoders of 1, 4, 3, 2 and 6 subsets; L_seg of 1, 4, 3, 2 and 7; KL of HMSD and DMCD
    "ccsd": 2 + 5 + 5 + 2,
    "dropout": 2 + 2 + 1,  # decoders of 1 and 3, L_seg of 4
}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def objective(method: str = "ccsd", precision: str = "fp32") -> Objective:
    torch.manual_seed(0)
    net = SharedSpecificNet(Model(width=8, levels=3), GLIOMA)
    return Objective(net, every_set(method=method), GLIOMA, precision=precision)


def loss(o: Objective, step: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    image = torch.randn(2, 4, SIDE, SIDE, SIDE, generator=generator)
    label = torch.randint(0, 4, (2, SIDE, SIDE, SIDE), generator=generator)
    draw = draw_step(o.settings, GLIOMA, AVAILABLE, seed=0, step=step, total_steps=9, samples=range(2))
    found: torch.Tensor = o(image, label, AVAILABLE, draw)["loss"]
    return found


def graphs_of_whole_steps(o: Objective) -> int:
    """Return the number of graphs of three steps, which the first one makes, none of them broken."""
    counters.clear()
    compiled = CompileCounterWithBackend("eager")
    o.compile_parts(backend=compiled)
    loss(o).backward()
    graphs = int(compiled.frame_count)
    for step in (1, 2):
        loss(o, step).backward()
    assert not counters["graph_break"]
    assert compiled.frame_count == graphs
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("method", ["ccsd", "dropout"])
def test_graphs_are_whole_and_as_many_as_shapes(method: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_gpu:
        go_the_way_of_gpus(monkeypatch)
    o = objective(method, "bf16" if on_gpu else "fp32")
    assert graphs_of_whole_steps(o) == GRAPHS[method]


@pytest.mark.slow
def test_one_subset_per_step_makes_all_graphs_within_a_cycle() -> None:
    """Steps that visit, walk, walk from the full set and score: none of them makes a graph when it comes again."""
    torch.manual_seed(0)
    settings = Distillation(every_n=2)
    o = Objective(SharedSpecificNet(Model(width=8, levels=3), GLIOMA), settings, GLIOMA)
    counters.clear()
    compiled = CompileCounterWithBackend("eager")
    o.compile_parts(backend=compiled)
    graphs = []
    for step in range(20):
        loss(o, step).backward()
        graphs.append(compiled.frame_count)
    assert not counters["graph_break"]
    assert graphs[7] < 30
    assert graphs[-1] == graphs[7]


@pytest.mark.slow
def test_options_that_save_memory_break_no_graph_and_add_none_later() -> None:
    o = objective()
    o.decode_batch = 2
    o.net.recompute_encoders()
    assert graphs_of_whole_steps(o) > 0


@pytest.mark.slow
@pytest.mark.parametrize("on_gpu", [False, True])
def test_compiled_parts_compute_the_same(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_gpu:
        go_the_way_of_gpus(monkeypatch)
    plain, compiled = objective(), objective()
    compiled.compile_parts(backend="aot_eager")
    found, wanted = loss(compiled), loss(plain)
    torch.testing.assert_close(found, wanted)
    found.backward()
    wanted.backward()
    for (name, ours), theirs in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
