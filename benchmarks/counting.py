"""Count what a training step moves and holds on a GPU, on tensors without data, under CUDA's rules.

Under `on_cuda()`, tensors on the CPU are treated like those on a GPU: the network takes its branches for GPUs, and
autocast uses float32 for the same operations as there, by the list in torch's own header. `Traffic` counts kernels and
the bytes that each of them reads and writes: an upper bound, because fused kernels move less.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ccsd.config.schema import Distillation, Model
from ccsd.distillation.objective import Objective
from ccsd.model.plugin import build_network
from ccsd.training.flops import Kind, counter, kinds_of_steps
from preprocess.task import default_task

TASK = default_task()
BRANCHES = tuple(f"ccsd.model.{module}.on_gpu" for module in ("blocks", "compose", "net"))
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@cache
def float32_on_cuda() -> frozenset[str]:
    """Return the operations that CUDA's autocast computes in float32, by torch's header."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    (listed,) = re.findall(r"#define AT_FORALL_FP32\(_\)((?:.*\\\n)*.*)", header.read_text())
    return frozenset(re.findall(r"_\((\w+)", listed))


class _Float32(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in float32_on_cuda() and torch.is_autocast_enabled("cuda"):
            args, kwargs = tree_map(_as_float32, (args, kwargs))
        return function(*args, **kwargs)


def _as_float32(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value


class _Norm:
    """Stand-ins for the kernels of the normalisation that read and write the same bytes."""

    @staticmethod
    def forward(x: Tensor, added: Tensor | None, groups: int, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        x.amax()
        y = x.sign() if added is None else x + added
        return y, x.new_empty(len(x), groups, 2), x.new_empty(len(x), 2, x.shape[1])

    @staticmethod
    def backward(
        grad: Tensor, x: Tensor, y: Tensor | None, weight: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        x.amax()
        inner = None if y is None else grad + y
        if inner is None:
            grad.amax()
        return (grad if inner is None else inner) + x, inner, *weight.new_empty(2, len(weight))


class _Projection:
    """Stand-ins for the kernels of the projection."""

    @staticmethod
    def forward(rows: Tensor, features: Tensor, _: Tensor) -> Tensor:
        features.amax()
        return rows.sign()

    @staticmethod
    def backward(dy: Tensor, features: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        dy.amax()
        dy.amax()
        return features.sign(), matrix.new_empty(matrix.shape)


class _Pool:
    """Stand-ins for the kernels of the pooling."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        x.amax()
        y = x[..., ::2, ::2, ::2]
        return y.new_zeros(y.shape), y.new_zeros(y.shape, dtype=torch.int8)

    @staticmethod
    def backward(dy: Tensor, taps: Tensor, space: tuple[int, int, int]) -> Tensor:
        dy.amax()
        taps.amax()
        return dy.new_zeros(*dy.shape[:2], *space)


class _Sums(torch.autograd.Function):
    """The sums of a loss over the voxels of two maps."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, other: Tensor, values: int) -> Tensor:
        logits.amax()
        other.amax()
        ctx.save_for_backward(logits, other)
        return logits.new_empty(*logits.shape[:-3], values, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None, None]:
        logits, other = ctx.saved_tensors
        return (logits + other.to(logits.dtype)).expand(logits.shape), None, None


class _Losses:
    """Stand-ins for the kernels of the losses."""

    class Overlap:
        """The loss of supervision."""

        @staticmethod
        def apply(logits: Tensor, target: Tensor) -> Tensor:
            found: Tensor = _Sums.apply(logits, target, 3)  # type: ignore[no-untyped-call]
            return found

    class Divergence:
        """The loss of distillation."""

        @staticmethod
        def apply(teacher: Tensor, student: Tensor, _: float) -> Tensor:
            found: Tensor = _Sums.apply(student, teacher, 1)  # type: ignore[no-untyped-call]
            return found[..., 0]


def _order_of_cudnn(x: Tensor, weight: Tensor, _: Any) -> torch.memory_format:
    """Return the memory order of a convolution's result; that of CPUs depends on what instructions they have."""
    orders = {suggest_memory_format(x), suggest_memory_format(weight)}
    return torch.channels_last_3d if torch.channels_last_3d in orders else torch.contiguous_format


@contextmanager
def on_cuda(*, autocast: bool) -> Iterator[None]:
    """Apply the rules of CUDA to computation on the CPU, with or without autocast."""
    before = torch.is_autocast_enabled("cuda")
    with ExitStack() as stack:
        for branch in BRANCHES:
            # Not a Mock object, which would keep the tensors that it is called with.
            stack.enter_context(mock.patch(branch, lambda _: True))  # noqa: PT008
        for module in ("ccsd.model.normalise", "ccsd.model.compose", "ccsd.model.pooling", "ccsd.distillation.losses"):
            stack.enter_context(mock.patch(f"{module}.by_triton", lambda _: True))  # noqa: PT008
        for name, stand_in in (("norm", _Norm), ("projection", _Projection), ("pool", _Pool)):
            stack.enter_context(mock.patch(f"ccsd.model.{name}_kernels", stand_in, create=True))
        stack.enter_context(mock.patch("ccsd.distillation.loss_kernels", _Losses, create=True))
        stack.enter_context(mock.patch("torch._C._conv_determine_backend_memory_format", _order_of_cudnn))
        stack.enter_context(_Float32())
        torch.set_autocast_enabled("cuda", autocast)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", before)


class Traffic(TorchDispatchMode):
    """Counts kernels and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        name = op.overloadpacket.__name__
        written = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        if written and name not in ALLOCATIONS and not _is_view(op):
            read = {id(v): v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}.values()
            self.kernels[name] += 1
            self.bytes[name] += sum(map(_size, read)) + sum(map(_size, written))
        return out


def _is_view(op: Any) -> bool:
    aliases = [value.alias_info for value in op._schema.returns]  # noqa: SLF001 - there is no other way to know
    return any(a is not None and not a.is_write for a in aliases) or op.overloadpacket.__name__ == "_unsafe_view"


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor in memory; expanded elements count once."""
    voxels = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        voxels *= length if stride else 1
    return voxels * tensor.element_size()


class _MemTracker(MemTracker):
    """Leaves out the weights of the specific encoders, which are made of tracked ones in each step."""

    def _track_module_params_and_buffers(self, module: nn.Module, install_grad_hooks: bool = True) -> tuple[int, int]:
        if not all(p.is_leaf for p in module.parameters()):
            return 0, 0
        return super()._track_module_params_and_buffers(module, install_grad_hooks)


@dataclass(frozen=True)
class Step:
    """A training step of the default task."""

    model: Model = field(default_factory=Model)
    settings: Distillation = field(default_factory=Distillation)
    batch: int = 2
    patch: int = 128
    precision: str = "bf16"
    decode_batch: int = 8
    recompute: bool = False

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of steps of a training with these settings."""
        return kinds_of_steps(self.settings, len(TASK.modalities))

    def traffic(self, kind: Kind) -> Traffic:
        """Count the kernels of forward and backward of one kind of step."""
        with self._prepared(kind) as (_, run), Traffic() as counted:
            run()
        return counted

    def mean_traffic(self) -> tuple[float, float]:
        """Return the bytes that a step moves and the kernels that it runs, in the mean over the kinds."""
        counted = [(kind.share, self.traffic(kind)) for kind in self.kinds]
        moved = sum(share * sum(traffic.bytes.values()) for share, traffic in counted)
        return moved, sum(share * sum(traffic.kernels.values()) for share, traffic in counted)

    def tflop(self) -> float:
        """Return the operations of forward and backward (in 10^12), in the mean over the kinds.

        They are counted as on CPUs: GPUs also multiply by zeros where that is faster.
        """
        total = 0.0
        for kind in self.kinds:
            with self._prepared(kind, on_gpu=False) as (_, run), counter() as counted:
                run()
            total += kind.share * counted.get_total_flops()
        return total / 1e12

    def peak_gib(self) -> float:
        """Return the most that forward and backward of any kind hold, weights and gradients included."""
        # A step that scores or decodes a teacher also does what other steps that walk do.
        by_weight = sorted(self.kinds, key=lambda kind: (kind.score, not kind.from_full))
        heaviest = {kind.walks: kind for kind in by_weight}
        return max(self._peak(kind) for kind in heaviest.values())

    def _peak(self, kind: Kind) -> float:
        with self._prepared(kind) as (objective, run):
            tracker = _MemTracker()
            tracker.track_external(objective)
            with tracker:
                run()
            memory = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
        return float(memory["Total"]) / 2**30

    @contextmanager
    def _prepared(self, kind: Kind, *, on_gpu: bool = True) -> Iterator[tuple[Objective, Callable[[], None]]]:
        modalities = len(TASK.modalities)
        available = torch.ones(self.batch, modalities, dtype=torch.bool)
        draw = kind.draw(self.settings, TASK, self.batch)
        branches = on_cuda(autocast=self.precision != "fp32") if on_gpu else nullcontext()
        with FakeTensorMode(allow_non_fake_inputs=True), branches:
            net = build_network(self.model, TASK)
            if self.recompute:
                net.recompute_encoders()
            objective = Objective(net, self.settings, TASK, decode_batch=self.decode_batch, precision=self.precision)

            def run() -> None:
                image = torch.zeros(self.batch, modalities, *[self.patch] * 3)
                label = torch.zeros(self.batch, *[self.patch] * 3, dtype=torch.uint8)
                objective(image, label, available, draw)["loss"].backward()

            yield objective, run
