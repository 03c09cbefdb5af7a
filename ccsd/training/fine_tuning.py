"""Fine-tuning: which weights of a finished run start another network, and where they go.

To find the axis of a weight that belongs to the sequences or the regions, the network is built with one more of them,
so nothing has to be listed for a backbone. The parts of a sequence go to the sequence of the same name in the new task,
the parts of a region to the region with the same name and the same classes.

- The specific encoders of new sequences start from the mean of the start's specific encoders.
- The decoder sums the contributions of all sequences. A new sequence starts with weights of 0 there. The weights of a
  removed sequence are spread evenly over all, because the mean of those present stood in for it when it was missing. So
  a task that only adds sequences starts with exactly the start's predictions for all sets of the old sequences.
- New regions and classifications are initialised at random, as without a start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor, nn

from ccsd.config.method import Model
from ccsd.config.schema import Config, Train
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet
from ccsd.model.plugin import build_network
from ccsd.model.weights import load_model
from ccsd.plugins.find import BACKBONE, is_plugin
from ccsd.records import Start
from ccsd.saved import SavedModel
from ccsd.start import start_of
from ccsd.training.log import TrainingLog
from preprocess.errors import first_few
from preprocess.task import Task

_MORE = "one more"
"""Name of a sequence or region that no task has: it has a space."""
DEEP = "the heads of deep supervision"
LEAK = (
    "note: the start was trained with another split of the same data, so it may have seen cases that this split uses "
    "for validation or testing. Use the same split for both (`ccsd split --list`), or do not trust these scores"
)


@dataclass(frozen=True)
class Axes:
    """The axis of a weight that belongs to the sequences, and that of the regions; None if there is none."""

    sequences: int | None
    regions: int | None


def axes_of(model: Model, task: Task) -> dict[str, Axes]:
    """Return the axes of every weight of a network, by its name."""
    shapes = _shapes(model, task)
    sequences = _shapes(model, task.model_copy(update={"sequences": {**task.sequences, _MORE: _MORE}}))
    regions = _shapes(model, task.model_copy(update={"regions": {**task.regions, _MORE: ()}}))
    return {name: Axes(_grown(shape, sequences[name]), _grown(shape, regions[name])) for name, shape in shapes.items()}


def _shapes(model: Model, task: Task) -> dict[str, Size]:
    with torch.device("meta"):
        return _shapes_of(SharedSpecificNet(model, task))


def _shapes_of(network: nn.Module) -> dict[str, Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _grown(shape: Size, other: Size) -> int | None:
    return next((axis for axis, (one, two) in enumerate(zip(shape, other, strict=True)) if one != two), None)


@dataclass(frozen=True)
class _Names:
    """Sequences or regions: the start's and ours, in the order of their axis, and those that are the same."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    same: frozenset[str]

    @property
    def taken(self) -> list[str]:
        return [name for name in self.ours if name in self.same]

    @property
    def new(self) -> list[str]:
        return [name for name in self.ours if name not in self.same]

    @property
    def skipped(self) -> list[str]:
        return [name for name in self.theirs if name not in self.same]

    def parts(self, value: Tensor, axis: int) -> dict[str, Tensor]:
        """Split a weight of the start into its parts."""
        return dict(zip(self.theirs, value.chunk(len(self.theirs), axis), strict=True))

    def joined(self, parts: dict[str, Tensor], others: Sequence[Tensor], axis: int) -> Tensor:
        """Assemble one of our weights from `parts` for names that are the same, else from `others` (one per name)."""
        pairs = zip(self.ours, others, strict=True)
        return torch.cat([parts[name] if name in self.same else other for name, other in pairs], axis)


class FineTuning:
    """How the network of a configuration starts from a finished run.

    Attributes
    ----------
    taken, mixed, new, skipped
        Names of weights: those taken entirely from the start, those taken in part, those not taken from the start, and
        those of the start that are not used.
    """

    def __init__(self, run: SavedModel, config: Config) -> None:
        self.run = run
        task, theirs = config.task, run.config.task
        self.sequences = _Names(theirs.modalities, task.modalities, frozenset(theirs.modalities) & {*task.modalities})
        same = {name for name, classes in task.regions.items() if set(theirs.regions.get(name, ())) == set(classes)}
        self.regions = _Names(tuple(theirs.regions), tuple(task.regions), frozenset(same))
        self.axes, old = axes_of(config.model, task), axes_of(run.config.model, theirs)
        self._only_ours = set(self.axes) - set(old)
        both = [name for name in self.axes if name in old]
        self.taken = frozenset(name for name in both if not self._has_new(name))
        self.mixed = frozenset(name for name in both if self._has_new(name) and not self._is_new(name))
        self.new = frozenset(self.axes) - self.taken - self.mixed
        self.skipped = frozenset(old) - self.taken - self.mixed

    def _has_new(self, name: str) -> bool:
        axes = self.axes[name]
        return bool(
            (axes.sequences is not None and self.sequences.new) or (axes.regions is not None and self.regions.new)
        )

    def _is_new(self, name: str) -> bool:
        return self.axes[name].regions is not None and not self.regions.same

    def load(self, net: nn.Module) -> None:
        """Load the weights of the start into a new network.

        Raises
        ------
        UsageError
            If the files of the start are damaged, do not belong to its configuration, or are no longer those that its
            record described.
        """
        model = load_model(self.run.folder or self.run)
        if model.record.model_hash != self.run.record.model_hash:
            raise replaced(self.run.where)
        weights, fresh = model.net.state_dict(), net.state_dict()
        for name in self.taken | self.mixed:
            value = self._started(name, weights[name], fresh[name])
            if value.shape != fresh[name].shape:
                raise UsageError(
                    f"train.init: {name} of {self.run.where} does not fit the network; use the version of the program "
                    "that it was trained with, or train from scratch"
                )
            fresh[name] = value
        net.load_state_dict(fresh)

    def _started(self, name: str, value: Tensor, fresh: Tensor) -> Tensor:
        axes = self.axes[name]
        if axes.sequences is not None:
            value = self._by_sequence(name, value, fresh, axes.sequences)
        if axes.regions is not None:
            parts = self.regions.parts(value, axes.regions)
            value = self.regions.joined(parts, fresh.chunk(len(self.regions.ours), axes.regions), axes.regions)
        return value

    def _by_sequence(self, name: str, value: Tensor, fresh: Tensor, axis: int) -> Tensor:
        names, (part, *_) = self.sequences, name.split(".")
        parts, count = names.parts(value, axis), len(names.ours)
        if part == "classify":
            return names.joined(parts, fresh.chunk(count, axis), axis)
        if part == "specific":
            return names.joined(parts, [torch.stack([*parts.values()]).mean(0)] * count, axis)
        nothing = torch.zeros_like(next(iter(parts.values())))
        value = names.joined(parts, [nothing] * count, axis)
        gone = [parts[name] / count for name in names.skipped]
        return value + torch.cat([sum(gone, nothing)] * count, axis) if gone else value

    @property
    def record(self) -> Start:
        """The entry in run.json."""
        record = self.run.record
        return Start(
            run=self.run.label,
            model_hash=record.model_hash,
            task=record.task,
            split_hash=record.split_hash,
            data_hash=record.data_hash,
            taken=tuple(self._words_taken()),
            new=tuple(self._words_new()),
            skipped=tuple(self._words_skipped()),
            start=record.start,
        )

    def _words_taken(self) -> Iterator[str]:
        yield "the shared encoder, the fusion and the decoder"
        yield f"the specific encoders of {', '.join(self.sequences.taken)}"
        if self.regions.taken:
            yield f"the outputs for {', '.join(self.regions.taken)}"

    def _words_new(self) -> Iterator[str]:
        if self.sequences.new:
            new = ", ".join(self.sequences.new)
            weights = "only what is spread over all" if self.sequences.skipped else "weights of 0"
            yield f"the specific encoders of {new} (the mean of those of the start; {weights} in the decoder)"
            yield f"the classification of {new}"
        if self.regions.new:
            yield f"the outputs for {', '.join(self.regions.new)}"
        if self._only_ours:
            yield DEEP

    def _words_skipped(self) -> Iterator[str]:
        if self.sequences.skipped:
            gone = ", ".join(self.sequences.skipped)
            yield f"the specific encoders of {gone} (their weights in the decoder are spread over all)"
        if self.regions.skipped:
            yield f"the outputs for {', '.join(self.regions.skipped)}"
        if self.skipped - set(self.axes):
            yield DEEP

    def lines(self, train: Train) -> list[str]:
        """Return the lines to print when the training starts."""
        start, frozen = self.record, frozen_steps(train)
        lines = [
            f"fine-tuning from {start}",
            f"  taken: {'; '.join(start.taken)}",
            f"  new: {'; '.join(start.new) or 'nothing'}",
            f"  skipped: {'; '.join(start.skipped) or 'nothing'}",
        ]
        if train.init_rate < 1:
            others = sorted({_module(name) for name in self.mixed | self.new})
            but = f" (all except: {', '.join(others)})" if others else ""
            lines.append(f"  learning rate x {train.init_rate:g} for weights taken entirely from the start{but}")
        return [*lines, f"  the encoders are frozen in the first {frozen} steps"] if frozen else lines

    def report(self, log: TrainingLog, train: Train, data_hash: str, split_hash: str) -> None:
        """Print what was taken, what is new and what was skipped, and write the names of all weights to the log."""
        print("\n".join(self.lines(train)), flush=True)
        if self.record.knows(data_hash, split_hash):
            print(LEAK, flush=True)
        names = {kind: sorted(getattr(self, kind)) for kind in ("taken", "mixed", "new", "skipped")}
        log.add("start", 0, model_hash=self.run.record.model_hash, **names)


class PluginFineTuning(FineTuning):
    """Fine-tuning of a plugin's network: weights with the same name and shape are taken.

    The sequences are the same. If regions differ, weights that one more region would change start from scratch, because
    their parts cannot be told apart.

    Raises
    ------
    UsageError
        If nothing fits, or it cannot be determined which weights belong to the regions.
    """

    def __init__(self, run: SavedModel, config: Config) -> None:
        self.run, self.name = run, config.model.backbone
        theirs, task = run.config.task, config.task
        old = _shapes_of(build_network(run.config.model, theirs))
        own = _shapes_of(build_network(config.model, task))
        regional = self._regional(config, own) if [*theirs.regions.items()] != [*task.regions.items()] else set()
        self.axes = {name: Axes(None, None) for name in own}
        self.taken = frozenset(name for name, shape in own.items() if old.get(name) == shape and name not in regional)
        self.mixed: frozenset[str] = frozenset()
        self.new, self.skipped = frozenset(own) - self.taken, frozenset(old) - self.taken
        if not self.taken:
            raise UsageError(
                f"train.init: no weight of {run.where} has the name and the shape of one of "
                f"model.backbone={self.name}; use the same model.options, or train from scratch"
            )

    def _regional(self, config: Config, own: dict[str, Size]) -> set[str]:
        more = config.task.model_copy(update={"regions": {**config.task.regions, _MORE: ()}})
        try:
            other = _shapes_of(build_network(config.model, more))
        except Exception as error:
            raise UsageError(
                f"train.init: {self.run.where} has other regions, and model.backbone={self.name} cannot be built with "
                f"one more region to find the weights that belong to regions ({error}); use the same regions, or "
                "train from scratch"
            ) from error
        return {name for name, shape in own.items() if other.get(name) != shape}

    def _words_taken(self) -> Iterator[str]:
        yield f"{len(self.taken)} of {len(self.axes)} weights of {self.name}, those of the same name and shape"

    def _words_new(self) -> Iterator[str]:
        if self.new:
            yield first_few(sorted(self.new), 8)

    def _words_skipped(self) -> Iterator[str]:
        if self.skipped:
            yield first_few(sorted(self.skipped), 8)


def _module(name: str) -> str:
    """Return the module that a weight belongs to: a whole encoder, or a layer of the decoder."""
    part, *rest = name.split(".")
    return ".".join([part, *rest[:-1]]) if part == "decoder" else part


def frozen_steps(train: Train) -> int:
    """Return for how many steps the encoders are frozen."""
    return round(train.freeze * train.steps)


def replaced(start: str | None) -> UsageError:
    """Return the error for a start that was replaced while the training that uses it was starting."""
    return UsageError(
        f"train.init: {start} was trained again just now; run the same command again to start from its new weights"
    )


def fine_tuning_of(config: Config, run: Path) -> FineTuning | None:
    """Return how the network of a run starts from another run; None if it is trained from scratch.

    Raises
    ------
    UsageError
        If the other run cannot be used.
    """
    start = start_of(config, run)
    if start is None:
        return None
    return (PluginFineTuning if is_plugin(BACKBONE, config.model.backbone) else FineTuning)(start, config)
