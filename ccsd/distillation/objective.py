"""The training objective: encode a batch once, decode every subset visited, and return the total loss.

    L = L_S + 0.1 L_sh + 0.02 L_sp + rho(t) (0.5 L_H + 0.5 L_D)

docs/explanation/method.md explains the terms. Every process runs every sub-network in every step: subsets act by
selection, so that sharded training stays in step whatever the processes draw.

Shapes: K subsets, B batch, M modalities, S = M - 1 steps of DMCD's path, R regions, D H W space.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccsd.config.method import MOST_SETS_KEPT, WITH_HMSD, Distillation
from ccsd.distillation.losses import (
    alignment_loss,
    distillation_loss,
    modality_loss,
    region_targets,
    segmentation_loss,
)
from ccsd.distillation.path import RunningCriticality, greedy_path, next_set, order_of_removal, removable, tally
from ccsd.distillation.schedule import Draw
from ccsd.distillation.subsets import is_partial
from ccsd.model.net import SharedSpecificNet
from ccsd.model.network import Network
from ccsd.precision import autocast
from preprocess.task import Task

MOST_SHAPES = 64
"""Maximum shapes of one compiled part: different numbers of subsets decoded together, with and without gradients."""


class Objective(nn.Module):
    """The network together with everything that it learns from."""

    def __init__(
        self,
        net: Network,
        settings: Distillation,
        task: Task,
        *,
        decode_batch: int = 8,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.net = net
        count = len(task.modalities)
        self.criticality = RunningCriticality(count) if count <= MOST_SETS_KEPT else None
        self.settings = settings
        self.task = task
        self.decode_batch = decode_batch
        self.segmentation_loss, self.distillation_loss = segmentation_loss, distillation_loss

    def compile_parts(self, **options: Any) -> None:
        """Compile the expensive parts in place, for each shape in a step; the names of the weights do not change.

        `options` are those of torch.compile.
        """
        assert isinstance(self.net, SharedSpecificNet)
        torch._dynamo.config.recompile_limit = MOST_SHAPES  # noqa: SLF001 - it has no public name
        options = {"dynamic": False, **options}
        self.net.shared.compile(**options)
        self.net.decoder.compile(**options)
        for owner, name in ((self.net, "encode_specific"), (self, "segmentation_loss"), (self, "distillation_loss")):
            setattr(owner, name, torch.compile(getattr(owner, name), **options))

    def forward(self, image: Tensor, label: Tensor, available: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return the total loss under `loss`, its unweighted terms, and DMCD's order of removal.

        A step that scores also has `scored`, for `learn_criticality`.

        Parameters
        ----------
        image
            B x M x D x H x W float.
        label
            B x D x H x W classes, 0 for the background.
        available
            B x M bool, at least one true in each row.
        draw
            The step's subsets, ramp and schedule.
        """
        with autocast(self.precision, image.device):
            return self._losses(image, region_targets(label, self.task), available, draw)

    def learn_criticality(self, scored: Tensor) -> None:
        """Blend what a step scored, summed over all its samples, into the running means."""
        assert self.criticality is not None
        self.criticality.update(*scored)

    def _losses(self, image: Tensor, target: Tensor, available: Tensor, draw: Draw) -> dict[str, Tensor]:
        features = self.net.encode(image, available)
        steps = 1 if draw.walked is not None else available.shape[1] - 1
        recompute = self.decode_batch < 1 + len(draw.visited) + steps * draw.walks
        levels = self.net.decode_levels(features, available[None], 1, recompute=recompute)
        full = levels[0]
        path, scored = self._path(features, full[0].detach(), available, target, draw)
        removed = order_of_removal(available, path)
        before, after, is_step = _steps(available, path, removed >= 0, draw)
        subsets = torch.cat([draw.visited, after])
        if len(subsets):
            rest = self.net.decode_levels(features, subsets, self.decode_batch, recompute=recompute)
            levels = [torch.cat(pair) for pair in zip(levels, rest, strict=True)]
        num_visited = len(draw.visited)
        visited, walked = levels[0][1 : 1 + num_visited], levels[0][1 + num_visited :]
        learnt, share = (len(subsets), 1.0) if self.settings.supervise_path else (num_visited, draw.share)
        logits = [level[: 1 + learnt] for level in levels]
        terms = {
            "supervised": self.supervised(logits, subsets[:learnt], available, target, share),
            "hmsd": self._hmsd(full, visited, draw.visited, available) / draw.share,
            "dmcd": self._dmcd(self._teachers(features, full, walked, before, draw), walked, is_step) / draw.share,
            **self._auxiliary(features, available),
        }
        return {"loss": self._total(terms, draw.ramp), **terms, "removed": removed, **scored}

    def _auxiliary(self, features: Any, available: Tensor) -> dict[str, Tensor]:
        """Return the terms about features of the shared-specific networks, 0 for any other."""
        if not isinstance(self.net, SharedSpecificNet):
            nothing = torch.zeros((), device=available.device)
            return {"shared": nothing, "specific": nothing}
        classified = self.net.classify(features.pooled_specific)
        return {
            "shared": alignment_loss(features.shared, available).mean(),
            "specific": modality_loss(classified, available).mean(),
        }

    def _total(self, terms: dict[str, Tensor], ramp: float | Tensor) -> Tensor:
        s = self.settings
        distilled = s.weight_hmsd * terms["hmsd"] + s.weight_dmcd * terms["dmcd"]
        auxiliary = s.weight_shared * terms["shared"] + s.weight_specific * terms["specific"]
        return terms["supervised"] + auxiliary + ramp * distilled

    def _hmsd(self, full: Tensor, visited: Tensor, subsets: Tensor, available: Tensor) -> Tensor:
        if self.settings.method not in WITH_HMSD or not len(visited):
            return full.new_zeros(())
        teachers = full.expand_as(visited)
        if self.settings.hmsd_pairs == "adjacent":
            teachers = torch.cat([full, visited[:-1]])
        divergence = self.distillation_loss(teachers, visited, self.settings.temperature)
        return _mean_of_valid(divergence, is_partial(subsets, available))

    def _teachers(self, features: Any, full: Tensor, walked: Tensor, before: Tensor, draw: Draw) -> Tensor:
        """Return the logits of the teachers: the sets before each step of the path that is distilled."""
        if draw.walked is None:
            return torch.cat([full, walked])[:-1]
        if draw.from_full or not len(before):
            return full[: len(before)]
        with torch.no_grad():
            return self.net.decode(features, before, self.decode_batch)

    def _dmcd(self, teachers: Tensor, students: Tensor, is_step: Tensor) -> Tensor:
        if not len(students):
            return students.new_zeros(())
        return _mean_of_valid(self.distillation_loss(teachers, students, self.settings.temperature), is_step)

    def supervised(
        self, levels: list[Tensor], subsets: Tensor, available: Tensor, target: Tensor, share: float = 1.0
    ) -> Tensor:
        """Return the mean of L_S over the resolutions, each with half the weight of the next finer one.

        The contribution of the partial subsets is divided by the share of steps that have any.
        """
        losses = torch.stack([self._supervision(z, subsets, available, _at(target, z), share) for z in levels])
        weights = 0.5 ** torch.arange(len(levels), device=losses.device)
        return (weights * losses).sum() / weights.sum()

    def _supervision(self, logits: Tensor, subsets: Tensor, available: Tensor, target: Tensor, share: float) -> Tensor:
        """L_S = w L_seg(z_M) + mean of L_seg over the partial subsets visited, w = `weight_full`.

        The first logits are the full set's.
        """
        losses = self.segmentation_loss(logits, target)
        return (
            self.settings.weight_full * losses[0].mean()
            + _mean_of_valid(losses[1:], is_partial(subsets, available)) / share
        )

    @torch.no_grad()
    def _path(
        self, features: Any, full: Tensor, available: Tensor, target: Tensor, draw: Draw
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return DMCD's sets P_1, ..., P_S (S x B x M), none for methods without it, and what was scored."""
        settings = self.settings
        if not draw.walks:
            return available.new_zeros((0, *available.shape)), {}
        if not settings.is_scored:
            return greedy_path(available, lambda _, __: draw.priority), {}
        means = self.criticality
        if means is not None and not draw.score:
            return greedy_path(available, lambda _, current: means.lookup(current)), {}
        scorer = _Scorer(self, features, full, target)
        path = greedy_path(available, scorer)
        return path, {} if means is None else {"scored": torch.stack([scorer.totals, scorer.counts])}


class _Scorer:
    """Measures how much each removal hurts by decoding the candidates, and sums the scores for the running means.

    In round i, at most M - i removals are possible. This many sets are decoded for each sample, those with a removal
    first: nine in total for four modalities, in the same rounds whatever modalities the samples have.
    """

    def __init__(self, objective: Objective, features: Any, full: Tensor, target: Tensor) -> None:
        self.objective, self.features, self.target = objective, features, target
        self.current = full
        self.loss = None if objective.settings.criterion == "kl" else objective.segmentation_loss(full, target)
        """L_seg of the current sets, by sample."""
        self.round = 0
        self.totals: Tensor = torch.zeros((), device=full.device)
        self.counts: Tensor = torch.zeros((), device=full.device)

    def __call__(self, candidates: Tensor, current: Tensor) -> Tensor:
        count = len(candidates) - self.round
        self.round += 1
        samples = torch.arange(len(current), device=current.device)
        rows = (~removable(current)).int().argsort(dim=0, stable=True)[:count]
        candidates = candidates[rows, samples]
        logits = self.objective.net.decode(self.features, candidates, self.objective.decode_batch)
        measured = self._measured(logits)
        found = self._scores(measured)
        scores = found.new_zeros(len(current.T), len(current)).scatter(0, rows, found)
        if self.objective.criticality is not None:
            totals, counts = tally(current, scores)
            self.totals, self.counts = self.totals + totals, self.counts + counts
        chosen = (candidates == next_set(current, scores)).all(-1).int().argmax(0)
        self.current = logits[chosen, samples]
        if self.loss is not None:
            self.loss = measured[chosen, samples]
        return scores

    def _measured(self, logits: Tensor) -> Tensor:
        """Return L_seg of the candidates, or how far they are from the current sets."""
        if self.loss is not None:
            return self.objective.segmentation_loss(logits, self.target)
        temperature = self.objective.settings.temperature
        return self.objective.distillation_loss(self.current.expand_as(logits), logits, temperature)

    def _scores(self, measured: Tensor) -> Tensor:
        if self.loss is None:
            return measured
        rise = measured - self.loss
        return -rise if self.objective.settings.criterion == "least" else rise


def _steps(available: Tensor, path: Tensor, is_step: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sets before and after each step of the path that is distilled, and whether it removes something."""
    before = torch.cat([available[None], path])[:-1]
    if draw.walked is None or not len(path):
        return before[: len(path)], path, is_step
    rows = draw.walked[None], torch.arange(len(available), device=available.device)
    return before[rows], path[rows], is_step[rows]


def _at(target: Tensor, logits: Tensor) -> Tensor:
    """Return the target at the resolution of the logits: the share of each region in each voxel."""
    if target.shape[-3:] == logits.shape[-3:]:
        return target
    depth, height, width = logits.shape[-3:]
    return functional.adaptive_avg_pool3d(target, (depth, height, width))


def _mean_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over each sample's valid entries of K x B values, then over the samples; 0 for a sample without any."""
    return ((values * valid).sum(0) / valid.sum(0).clamp(min=1)).mean()
