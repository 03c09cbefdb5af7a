"""Record a step's forward and backward pass as CUDA graphs, and replay them.

A step of the default network has over a thousand operations, and the host needs longer to launch them one by one than
a fast GPU needs to compute them. A graph launches all of them at once. It repeats exactly what was recorded, on the
same memory: so each kind of step is recorded once, when it first occurs, and its inputs are copied into place.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from itertools import compress
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from ccsd.config import Config
from ccsd.distillation.schedule import Draw
from ccsd.training.flops import examples

_Batch = tuple[Tensor, ...]
"""Images, labels and which sequences are there."""

WARM_UP = 2
"""Runs before a recording, in which libraries choose and load their kernels; that cannot be recorded."""


class Tape(Protocol):
    """What records work on a device."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work where it will be recorded."""

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Return what the work returns, and a function that repeats the work and overwrites these results."""


class CudaTape:
    """Records CUDA graphs. They share their memory, because only one step is computed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work on the stream of the recordings."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Record a graph. Other threads, such as NCCL's, may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            found = work()
        return found, graph.replay


class Recorder:
    """Stands in for the `forward` of an `Objective`, records each kind of step, and replays it.

    A step must be free of side effects, of random numbers and of waiting for the device, and return the loss and other
    tensors, of which only the loss has a gradient. The parameters must stay where they are in memory.

    Parameters
    ----------
    objective
        Its `forward` is to be replaced by this.
    examples
        Returns a draw of every kind for a number of samples.
    sizes
        The numbers of samples of the micro-batches, of which the first has most.
    tape
        Records.
    """

    def __init__(
        self, objective: nn.Module, examples: Callable[[int], Iterable[Draw]], sizes: Iterable[int], tape: Tape
    ) -> None:
        self.step, self.examples, self.tape = _Step(objective), examples, tape
        self.sizes = sorted(set(sizes), reverse=True)
        self._batches: dict[int, _Batch] = {}
        """Where replays read their batches, by the number of samples."""
        self._recordings: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, image: Tensor, label: Tensor, available: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return what the objective returns; the gradients of the loss are replayed too."""
        batch = image, label, available
        inputs = [*batch, *draw.tensors().values()]
        shapes = ((value.shape, value.dtype) for value in inputs)
        kind = (draw.walks, draw.score, draw.from_full, draw.share, *shapes)
        recording = self._recordings.get(kind)
        if recording is None:
            if not self._batches:
                self._warm_up(batch)
            place = self._batches[len(image)]
            recording = self._recordings[kind] = _Recording(self.step, place, draw, self.weights)
            recording.record(self.tape)
        return recording.replay(inputs, draw.ramp)

    def _warm_up(self, batch: _Batch) -> None:
        """Compute a step of every kind and size: later, the memory for that would be needed beside the recordings'."""
        for size in self.sizes:
            place = self._batches[size] = tuple(value[:size].clone() for value in batch)
            for draw in self.examples(size):
                self.tape.warm_up(_Recording(self.step, place, draw.to(place[0].device), self.weights).run)

    @cached_property
    def weights(self) -> "_Weights":
        """The parameters, which are complete and on the device when the first step begins."""
        return _Weights(self.step)


def record_steps(objective: nn.Module, config: Config, sizes: Iterable[int], tape: Tape) -> None:
    """From now on, record the steps of an `Objective` of these settings; `sizes` as in `Recorder`."""
    vars(objective)["forward"] = Recorder(objective, partial(examples, config), sizes, tape)


class _Step(nn.Module):
    """An objective's own step, of which `Recorder` has taken the place."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective, self._own = objective, objective.forward

    def forward(self, *inputs: object) -> dict[str, Tensor]:
        """Compute the step."""
        found: dict[str, Tensor] = self._own(*inputs)
        return found


class _Weights:
    """The parameters, and for each a leaf of the recorded graphs and a place for its gradient, shared by all graphs.

    The leaves are other tensors in the same memory: a parameter's own gradient, to which DeepSpeed attaches its hooks,
    belongs to the stream of the computation, which a recording must not wait for.
    """

    def __init__(self, step: nn.Module) -> None:
        named = {name: p for name, p in step.named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        self.leaves = {name: p.detach().requires_grad_() for name, p in named.items()}
        self.gradients = [torch.zeros_like(p) for p in self.parameters]


class _Recording:
    """One kind of step, on inputs that stay in one place."""

    def __init__(self, step: _Step, batch: _Batch, draw: Draw, weights: _Weights) -> None:
        self.step, self.batch, self.weights = step, batch, weights
        self.ramp = torch.ones((), device=batch[0].device)
        drawn: dict[str, Any] = {name: value.clone() for name, value in draw.tensors().items()}
        self.draw = replace(draw, ramp=self.ramp, **drawn)
        self.scale = torch.ones_like(self.ramp)
        """Gradient of what follows by the loss."""
        self.loss: Tensor | None = None
        """The loss with its graph, between the two passes."""
        self.used: list[bool] = []
        """Which parameters have a gradient."""

    def run(self) -> None:
        """Compute both passes."""
        self._forward()
        self._backward()

    def record(self, tape: Tape) -> None:
        """Record both passes."""
        self.outputs, self.replay_forward = tape.record(self._forward)
        _, self.replay_backward = tape.record(self._backward)

    def replay(self, inputs: list[Tensor], ramp: float | Tensor) -> dict[str, Tensor]:
        """Return the outputs for these inputs."""
        for held, value in zip([*self.batch, *self.draw.tensors().values()], inputs, strict=True):
            held.copy_(value)
        self.ramp.fill_(ramp)
        loss = _Replay.apply(self, *self.weights.parameters)  # type: ignore[no-untyped-call]
        return {name: value.clone() for name, value in self.outputs.items()} | {"loss": loss}

    def _forward(self) -> dict[str, Tensor]:
        with torch.enable_grad():  # a Function's forward pass runs without
            outputs: dict[str, Tensor] = functional_call(self.step, self.weights.leaves, (*self.batch, self.draw))
        self.loss = outputs["loss"]
        return {name: value.detach() for name, value in outputs.items()}

    def _backward(self) -> dict[str, Tensor]:
        assert self.loss is not None
        found = torch.autograd.grad(self.loss, list(self.weights.leaves.values()), self.scale, allow_unused=True)
        self.loss = None  # and with it what the backward pass needed
        self.used = [gradient is not None for gradient in found]
        kept = list(compress(self.weights.gradients, self.used))
        torch._foreach_copy_(kept, [gradient for gradient in found if gradient is not None])
        return {}


class _Replay(torch.autograd.Function):
    """A recorded step as a function of the parameters."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *_: Tensor) -> Tensor:
        ctx.recording = recording
        recording.replay_forward()
        return recording.outputs["loss"].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        recording: _Recording = ctx.recording
        recording.scale.copy_(scale)
        recording.replay_backward()
        # Copies: the next replay overwrites the memory, and a parameter keeps what it is given as its gradient.
        gradients = zip(recording.weights.gradients, recording.used, strict=True)
        return None, *(gradient.clone() if is_used else None for gradient, is_used in gradients)
