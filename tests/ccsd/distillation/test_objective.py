"""The objective: the full set is untouched by distillation, teachers get no gradient, every module takes part."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ccsd.config import Model
from ccsd.distillation.losses import distillation_loss, region_targets, segmentation_loss
from ccsd.distillation.objective import Objective
from ccsd.distillation.path import order_of_removal, removable, remove_each, tally
from ccsd.distillation.schedule import Draw, draw_step
from ccsd.distillation.subsets import is_partial
from ccsd.model import SharedSpecificNet
from support.distilling import every_set
from support.tasks import GLIOMA

METHODS = ["full", "dropout", "hmsd", "dmcd", "ccsd"]
AVAILABLE = torch.ones(2, 4, dtype=torch.bool)


def objective(**settings: object) -> Objective:
    torch.manual_seed(0)
    return Objective(SharedSpecificNet(Model(width=4, levels=2), GLIOMA), every_set(**settings), GLIOMA)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 4, 8, 8, 8, generator=generator)
    return image, torch.randint(0, 4, (2, 8, 8, 8), generator=generator)


def draw(o: Objective, available: Tensor = AVAILABLE, step: int = 4) -> Draw:
    return draw_step(o.settings, GLIOMA, available, seed=0, step=step, total_steps=10, samples=[0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_terms_of_each_method(method: str) -> None:
    o = objective(method=method)
    out = o(*batch(), AVAILABLE, draw(o))
    assert (out["hmsd"] > 0) == (method in {"hmsd", "ccsd"})
    assert (out["dmcd"] > 0) == (method in {"dmcd", "ccsd"})
    expected = out["supervised"] + 0.1 * out["shared"] + 0.02 * out["specific"] + 0.5 * out["hmsd"] + 0.5 * out["dmcd"]
    torch.testing.assert_close(out["loss"], expected)
    assert out["removed"].shape == ((3, 2) if method in {"dmcd", "ccsd"} else (0, 2))


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient(method: str) -> None:
    o = objective(method=method)
    o(*batch(), AVAILABLE, draw(o))["loss"].backward()
    assert [name for name, p in o.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("pairs", ["levels", "adjacent", "all"])
def test_hmsd_gives_the_full_set_no_gradient(pairs: str) -> None:
    o = objective(hmsd_pairs=pairs)
    full, students = torch.randn(1, 2, 3, 4, 4, 4, requires_grad=True), draw(o).visited
    visited = torch.randn(len(students), 2, 3, 4, 4, 4, requires_grad=True)
    o._hmsd(full, visited, students, AVAILABLE).backward()
    assert full.grad is None
    assert visited.grad.flatten(1).abs().sum(-1).min() > 0


def test_dmcd_teaches_only_downwards() -> None:
    o = objective()
    path = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]]).bool()[:, None].expand(-1, 2, -1)
    chain = torch.randn(4, 2, 3, 4, 4, 4, requires_grad=True)
    o._dmcd(chain[:-1], chain[1:], order_of_removal(AVAILABLE, path) >= 0).backward()
    assert chain.grad[0].abs().sum() == 0
    assert chain.grad[1:].flatten(1).abs().sum(-1).min() > 0


@pytest.mark.parametrize(("pairs", "teachers"), [("levels", [0, 0, 0]), ("adjacent", [0, 1, 2])])
def test_hmsd_teaches_each_subset_by_the_full_set_or_by_the_next_larger_one(pairs: str, teachers: list[int]) -> None:
    o = objective(hmsd_pairs=pairs)
    logits = torch.randn(4, 2, 3, 4, 4, 4)
    expected = distillation_loss(logits[teachers], logits[1:], o.settings.temperature).mean()
    torch.testing.assert_close(o._hmsd(logits[:1], logits[1:], draw(o).visited, AVAILABLE), expected)


def test_dmcd_teaches_each_set_by_the_one_before_it() -> None:
    o = objective()
    path = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]]).bool()[:, None].expand(-1, 2, -1)
    chain = torch.randn(4, 2, 3, 4, 4, 4)
    expected = distillation_loss(chain[[0, 1, 2]], chain[1:], o.settings.temperature).mean()
    torch.testing.assert_close(o._dmcd(chain[:-1], chain[1:], order_of_removal(AVAILABLE, path) >= 0), expected)


@pytest.mark.parametrize("supervise_path", [True, False])
def test_one_per_step_has_the_losses_of_all_in_the_mean(supervise_path: bool) -> None:
    """Over the sizes and the steps of the path that may be drawn, also for a case that cannot have all of them."""
    available = torch.tensor([[True, True, True, True], [True, False, True, True]])
    one = objective(per_step="one", supervise_path=supervise_path, criterion="static")
    every = objective(supervise_path=supervise_path, criterion="static")
    image, label = batch()
    whole = draw(every, available)
    expected = every(image, label, available, whole)
    found = dict.fromkeys(("supervised", "hmsd", "dmcd", "loss"), 0.0)
    turns = [draw(one, available, step=step) for step in (4, 5)]
    for i, steps in enumerate((3, 2)):
        alone = {"image": image[i : i + 1], "label": label[i : i + 1], "available": available[i : i + 1]}
        of_one = [replace(d, visited=d.visited[:, i : i + 1], priority=d.priority[:, i : i + 1]) for d in turns]
        sets = [k for k in range(3) if is_partial(whole.visited, available)[k, i]]
        draws = [replace(of_one[0], visited=whole.visited[k : k + 1, i : i + 1], ramp=1.0) for k in sets]
        draws += [
            replace(of_one[1], walked=torch.tensor([step]), from_full=step == 0, ramp=1.0) for step in range(steps)
        ]
        for drawn in draws:
            out = one(**alone, draw=drawn)
            for name in found:
                found[name] += out[name].item() / (2 * 2 * steps)
    for name, value in found.items():
        assert value == pytest.approx(expected[name].item(), rel=1e-5), name


def test_a_path_that_is_not_supervised_is_only_distilled() -> None:
    image, label = batch()
    on, off, none = (objective(**s) for s in ({}, {"supervise_path": False}, {"method": "hmsd"}))
    supervised = [o(image, label, AVAILABLE, draw(o))["supervised"] for o in (on, off, none)]
    assert supervised[0] != supervised[1]
    torch.testing.assert_close(supervised[1], supervised[2])
    assert off(image, label, AVAILABLE, draw(off))["dmcd"] > 0


def test_supervision_is_that_of_the_full_set_plus_the_mean_over_what_each_sample_lacks() -> None:
    subsets = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [1, 1, 1, 1]]])
    logits, target = torch.randn(4, 2, 3, 4, 4, 4), torch.rand(2, 3, 4, 4, 4).round()
    full, *partial = segmentation_loss(logits, target)
    means = [torch.stack([partial[k][0] for k in range(3)]).mean(), partial[1][1]]
    expected = 2 * full.mean() + torch.stack(means).mean()
    torch.testing.assert_close(objective().supervised([logits], subsets.bool(), AVAILABLE, target), expected)
    heavier = objective(weight_full=3).supervised([logits], subsets.bool(), AVAILABLE, target)
    torch.testing.assert_close(heavier, expected + full.mean())


@pytest.mark.parametrize(
    ("method", "decode_batch", "expected"),
    [("full", 1, False), ("hmsd", 3, True), ("hmsd", 4, False), ("ccsd", 6, True), ("ccsd", 7, False)],
)
def test_only_what_does_not_fit_in_one_round_is_computed_again(
    method: str, decode_batch: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round decodes at most `decode_batch` sets; the full set, 3 drawn ones and 3 of the path are 7."""
    o = objective(method=method)
    o.decode_batch = decode_batch
    original, seen = o.net.decode_levels, set()

    def decode_levels(*args: object, recompute: bool) -> list[Tensor]:
        if torch.is_grad_enabled():  # where nothing is learnt, nothing is kept
            seen.add(recompute)
        return original(*args, recompute=recompute)

    monkeypatch.setattr(o.net, "decode_levels", decode_levels)
    o(*batch(), AVAILABLE, draw(o))
    assert seen == {expected}


def test_the_full_set_is_the_same_with_and_without_distillation() -> None:
    image, label = batch()
    outputs = []
    for method in ("full", "ccsd"):
        o = objective(method=method, weight_hmsd=0 if method == "full" else 0.5)
        seen: list[Tensor] = []
        original = o.net.decode_levels
        o.net.decode_levels = lambda *a, f=original, s=seen, **k: s.append(f(*a, **k)) or s[-1]
        o(image, label, AVAILABLE, draw(o))
        outputs.append(seen[0])
    for on, off in zip(*outputs, strict=True):
        assert torch.equal(on, off)


def test_the_ramp_scales_distillation_alone() -> None:
    o = objective()
    on, off = (o(*batch(), AVAILABLE, replace(draw(o), ramp=r)) for r in (1.0, 0.0))
    torch.testing.assert_close(on["loss"] - off["loss"], 0.5 * on["hmsd"] + 0.5 * on["dmcd"])


def test_decoding_one_by_one_has_the_same_gradients() -> None:
    def gradients(decode_batch: int) -> list[Tensor]:
        o = objective()
        o.decode_batch = decode_batch
        o(*batch(), AVAILABLE, draw(o))["loss"].backward()
        return [p.grad for p in o.parameters() if p.grad is not None]

    for a, b in zip(gradients(8), gradients(1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_loss_of_a_batch_is_the_mean_of_its_samples() -> None:
    """What makes N processes equal one: nothing in the loss couples samples."""
    o = objective()
    image, label = batch()
    whole = draw(o)
    together = o(image, label, AVAILABLE, whole)["loss"]
    parts = []
    for i in range(2):
        one = replace(whole, visited=whole.visited[:, i : i + 1], priority=whole.priority[:, i : i + 1])
        parts.append(o(image[i : i + 1], label[i : i + 1], AVAILABLE[:1], one)["loss"])
    torch.testing.assert_close(together, torch.stack(parts).mean(), rtol=1e-5, atol=1e-6)


def test_cases_that_lack_modalities_train() -> None:
    o = objective()
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    image, label = batch()
    out = o(torch.where(available[..., None, None, None], image, torch.nan), label, available, draw(o, available))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    assert all(torch.isfinite(p.grad).all() for p in o.parameters() if p.grad is not None)
    assert out["removed"].T.tolist()[1] == [-1, -1, -1]


@pytest.mark.parametrize("criterion", ["loss", "kl", "static", "random", "least"])
def test_criteria_walk_a_path(criterion: str) -> None:
    o = objective(criterion=criterion)
    drawn = draw(o)
    out = o(*batch(), AVAILABLE, drawn)
    for sample in out["removed"].T.tolist():
        assert len(set(sample)) == 3
    if criterion == "static":
        assert out["removed"].T.tolist() == [[2, 0, 3]] * 2
    if criterion == "random":
        assert torch.equal(out["removed"], drawn.priority.argsort(0, descending=True)[:3])


def test_the_criterion_removes_what_raises_the_loss_most() -> None:
    """Measured outside the objective: the first removal is the one after which the loss is highest."""
    o = objective()
    image, label = batch()
    out = o(image, label, AVAILABLE, draw(o))
    with torch.no_grad():
        logits = o.net.decode(o.net.encode(image), remove_each(AVAILABLE), 4)
        worst = segmentation_loss(logits, region_targets(label, GLIOMA)).argmax(0)
    assert out["removed"][0].tolist() == worst.tolist()
    least = objective(criterion="least")
    first_least = least(image, label, AVAILABLE, draw(least))["removed"][0]
    assert (first_least != worst).all()


@pytest.mark.parametrize("criterion", ["loss", "kl", "least"])
def test_each_removal_is_scored_against_the_set_before_it(criterion: str) -> None:
    """Measured outside the objective, along the whole path; the running means keep what was measured."""
    o = objective(criterion=criterion)
    image, label = batch()
    out = o(image, label, AVAILABLE, draw(o))
    removed = out["removed"]
    o.learn_criticality(out["scored"])
    features, current = o.net.encode(image), AVAILABLE
    for step in removed:
        with torch.no_grad():
            before, after = o.net.decode(features, current[None], 4), o.net.decode(features, remove_each(current), 4)
            rise = segmentation_loss(after, region_targets(label, GLIOMA)) - segmentation_loss(
                before, region_targets(label, GLIOMA)
            )
            divergence = distillation_loss(before.expand_as(after), after, o.settings.temperature)
        scores = {"loss": rise, "kl": divergence, "least": -rise}[criterion].where(removable(current), -torch.inf)
        assert step.tolist() == scores.argmax(0).tolist()
        totals, counts = tally(current, scores)
        known = counts > 0
        torch.testing.assert_close(o.criticality.mean[known], (totals / counts)[known])
        current = current & ~torch.nn.functional.one_hot(step, 4).bool()


def test_scoring_costs_nine_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 4, 3 and 2 removals, whatever a sample has: processes must decode as often as one another."""
    o = objective()
    decode, decoded = o.net.decode, []
    monkeypatch.setattr(
        o.net, "decode", lambda f, subsets, *rest: decoded.append(len(subsets)) or decode(f, subsets, *rest)
    )
    o(*batch(), torch.tensor([[True, False, True, False], [False, True, False, False]]), draw(o))
    assert decoded == [4, 3, 2]


def test_between_scorings_the_running_means_decide() -> None:
    o = objective(every_n=2)
    o.criticality.mean[0b1111] = torch.tensor([0.0, 5, 0, 0])
    out = o(*batch(), AVAILABLE, draw(o, step=5))
    assert out["removed"][0].tolist() == [1, 1]


def test_running_means_are_over_all_that_a_step_scored() -> None:
    """The other of two processes has seen as many removals, each three times as bad: the mean is twice as bad."""
    alone, of_two = objective(), objective()
    scored = alone(*batch(), AVAILABLE, draw(alone))["scored"]
    alone.learn_criticality(scored)
    totals, counts = scored
    of_two.learn_criticality(scored + torch.stack([3 * totals, counts]))
    torch.testing.assert_close(of_two.criticality.mean, 2 * alone.criticality.mean)


def test_bf16_losses_are_float32() -> None:
    o = objective()
    o.precision = "bf16"
    out = o(*batch(), AVAILABLE, draw(o))
    assert out["loss"].dtype == torch.float32
    out["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in o.parameters() if p.grad is not None)


def test_bf16_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device takes by itself may be float16, as on a GPU, whose range is too small."""
    o = objective()
    o.precision = "bf16"
    seen: list[torch.dtype] = []
    encode = o.net.encode
    monkeypatch.setattr(o.net, "encode", lambda *a: seen.append(torch.get_autocast_dtype("cpu")) or encode(*a))
    default = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        o(*batch(), AVAILABLE, draw(o))
    finally:
        torch.set_autocast_dtype("cpu", default)
    assert seen == [torch.bfloat16]


def test_deep_supervision_teaches_the_coarser_outputs() -> None:
    torch.manual_seed(0)
    net = SharedSpecificNet(Model(width=4, levels=4, deep_supervision=True), GLIOMA)
    o = Objective(net, every_set(), GLIOMA)
    image, label = batch()
    out = o(image, label, AVAILABLE, draw(o))
    out["loss"].backward()
    assert [name for name, p in o.named_parameters() if p.grad is None] == []
    assert [level.shape[-1] for level in net.decode_levels(net.encode(image), AVAILABLE[None], 8)] == [8, 4, 2]
    assert len(net.eval().decode_levels(net.encode(image), AVAILABLE[None], 8)) == 1


def test_a_level_of_deep_supervision_weighs_half_of_the_finer_one() -> None:
    """The target of a coarser output is the share of each region in its voxels."""
    target = torch.zeros(2, 3, 4, 4, 4)
    target[:, :, :2, :2, :1] = 1
    none = AVAILABLE.new_zeros((0, 2, 4))
    fine, coarse = torch.randn(1, 2, 3, 4, 4, 4), torch.randn(1, 2, 3, 2, 2, 2)
    share = torch.zeros(2, 3, 2, 2, 2)
    share[:, :, 0, 0, 0] = 0.5
    of_levels = (2 * segmentation_loss(fine, target).mean() + segmentation_loss(coarse, share).mean()) / 3
    torch.testing.assert_close(objective(weight_full=1).supervised([fine, coarse], none, AVAILABLE, target), of_levels)


@pytest.mark.parametrize("criterion", ["loss", "kl"])
def test_what_is_made_is_made_where_the_inputs_are(criterion: str) -> None:
    """A stand-in for a GPU: a tensor made without a device would lie on another than the inputs."""
    o = objective(criterion=criterion)
    image, label = batch()
    drawn = draw(o)
    with torch.device("meta"):
        out = o(image, label, AVAILABLE, drawn)
    assert {value.device.type for value in out.values()} == {"cpu"}


def test_a_draw_moves_with_its_tensors() -> None:
    drawn = draw(objective())
    moved = drawn.to(torch.device("meta"))
    assert (moved.visited.device.type, moved.priority.device.type) == ("meta", "meta")
    assert (moved.ramp, moved.score) == (drawn.ramp, drawn.score)
