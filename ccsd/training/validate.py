"""Validation during training: mean Dice of a few combinations of modalities over the validation cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccsd.config.schema import Config
from ccsd.data.patches import copy_with_torch
from ccsd.distillation.losses import VOLUME, region_targets
from ccsd.errors import UsageError
from ccsd.inference.window import predict_probabilities
from ccsd.metrics import paint
from ccsd.model import Network, build_network
from ccsd.training.distributed import Process
from ccsd.training.engine import whole_weights
from preprocess.pictures import Labels, Picture, draw, side_by_side, slice_of_interest
from preprocess.store.reader import CaseStore
from preprocess.task import Subset, Task

THRESHOLD = 0.5


@dataclass(frozen=True)
class Validation:
    """The result of a validation."""

    dice: dict[str, dict[str, float]]
    """Subset -> region -> mean Dice. Cases that lack a modality of a subset do not count for it.

    Subsets that no case has are left out.
    """
    mean: float
    """Mean over all of them."""
    picture: Picture | None
    """Picture of the first case; None on every process but the first."""


def validate(
    engine: Any, config: Config, data: Path, cases: tuple[str, ...], process: Process, stopped: Callable[[], bool]
) -> Validation | None:
    """Score the cases, which are divided among the processes; every process must call this.

    Returns None if `stopped`, which all processes call together before each round of cases, returns True.
    """
    net = _inference_copy(engine, config, process)
    task, names = config.task, config.train.validate_subsets
    totals = torch.zeros(len(names), len(task.regions) + 1, device=process.device)
    picture = None
    for first in range(0, len(cases), process.world):
        if stopped():
            return None
        for case in cases[first : first + process.world][process.rank : process.rank + 1]:
            found, drawn = _score(net, config, CaseStore(data, case, copy_with_torch), process.device, case == cases[0])
            totals += found
            picture = picture if drawn is None else drawn
    process.sum(totals)
    scored = (totals[:, -1] > 0).tolist()
    mean = (totals[scored, :-1] / totals[scored, -1:]).cpu()
    seen = compress(names, scored)
    dice = {name: dict(zip(task.regions, row.tolist(), strict=True)) for name, row in zip(seen, mean, strict=True)}
    return Validation(dice, mean.mean().item(), picture)


def check_validation(config: Config, data: Path, cases: Sequence[str]) -> None:
    """Reject validation cases of which none has all modalities of any subset that is validated with.

    Raises
    ------
    UsageError
        If there are cases, and none of them can be scored.
    """
    subsets = [config.task.subset(name) for name in config.train.validate_subsets]
    owned = (set(CaseStore(data, case).modalities) for case in cases)
    if cases and not any(set(subset) <= own for own in owned for subset in subsets):
        have = config.task.subset_name("+".join(CaseStore(data, cases[0]).modalities))
        raise UsageError(
            f"train.validate_subsets: no validation case of {data} has all sequences of any of "
            f"{', '.join(config.train.validate_subsets)}; choose combinations that they have, such as {have}"
        )


def _score(
    net: Network, config: Config, store: CaseStore, device: torch.device, is_drawn: bool
) -> tuple[Tensor, Picture | None]:
    """Return one row per combination: Dice by region, then 1; all 0 if the case lacks the combination."""
    task, names = config.task, config.train.validate_subsets
    scores = torch.zeros(len(names), len(task.regions) + 1, device=device)
    possible = [i for i, name in enumerate(names) if set(task.subset(name)) <= set(store.modalities)]
    if not possible:
        return scores, None
    predicted = _predict(net, config, store, [task.subset(names[i]) for i in possible], device)
    label = store.read_label()
    target = region_targets(torch.from_numpy(label)[None], task).to(predicted.device) > 0
    scores[possible, :-1] = _dice(predicted, target).to(device)
    scores[possible, -1] = 1
    return scores, _picture(store, label, predicted, task) if is_drawn else None


def _inference_copy(engine: Any, config: Config, process: Process) -> Network:
    """Return a network for inference that no longer belongs to the engine; every process must call this.

    With stage 3 the processes would have to run the engine's own network in lockstep, but they score different cases.
    And what was compiled for training belongs only to that network.
    """
    net = build_network(config.model, config.task)
    net.load_state_dict(whole_weights(engine, process))
    return net.to(process.device).eval()


def _predict(net: Network, config: Config, store: CaseStore, subsets: list[Subset], device: torch.device) -> Tensor:
    """Return K x R x D x H x W bool: the regions that the network sees from each of K combinations."""
    image = torch.from_numpy(store.read_channels(store.modalities))
    probabilities = predict_probabilities(
        net,
        image.to(device),
        subsets,
        config.task,
        patch=config.train.patch,
        overlap=config.evaluation.overlap,
        decode_batch=config.runtime.decode_batch,
        precision=config.train.precision,
    )
    return probabilities > THRESHOLD


def _picture(store: CaseStore, reference: Labels, predicted: Tensor, task: Task) -> Picture:
    """Draw the axial slice with the most tumour: image, reference, K x R x D x H x W predictions, side by side."""
    index = slice_of_interest(reference, task)
    image = store.read_plane(store.modalities[0], index)
    maps = [reference[index], *(paint(regions, task) for regions in predicted[:, :, index].cpu().numpy())]
    return side_by_side([draw(image), *(draw(image, labels) for labels in maps)])


def _dice(predicted: Tensor, target: Tensor) -> Tensor:
    """Return K x R Dice of K x R x D x H x W masks; 1 where both are empty."""
    overlap = (predicted & target).sum(VOLUME)
    size = predicted.sum(VOLUME) + target.sum(VOLUME)
    return torch.where(size > 0, 2 * overlap / size.clamp(min=1), 1.0)
