"""What a network takes of another one: by the names of sequences, by the meaning of regions, and nothing in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccsd.config import Config, Model, Train
from ccsd.config.science import science_digest
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet
from ccsd.model.weights import file_hash, save_weights
from ccsd.records import RunRecord
from ccsd.study import WEIGHTS
from ccsd.training.engine import learning_rate, parameter_groups, set_learning_rate
from ccsd.training.fine_tuning import Axes, FineTuning, axes_of, fine_tuning_of
from ccsd.training.loop import _Training
from preprocess.task import Task
from support.runs import SMALL, config_of, write_run
from support.tasks import FIVE, FOURTH, GLIOMA, ONE, changed, task_of

SIZE = (8, 8, 8)
HEADS = {"decoder.head.weight", "decoder.head.bias", "decoder.coarse_head.weight"}
NEW_ADC = "the specific encoders of adc (the mean of those of the start; weights of 0 in the decoder)"
SPREAD = " (their weights in the decoder are spread over all)"
Started = Callable[..., tuple[SharedSpecificNet, SharedSpecificNet, FineTuning]]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """Return a function that gives the network of a start, one that starts from it, and what became of it."""

    def start(
        theirs: Task, ours: Task, alter: Callable[[SharedSpecificNet], None] | None = None, **models: Any
    ) -> tuple[SharedSpecificNet, SharedSpecificNet, FineTuning]:
        before = config_of(theirs, models.get("their_model"))
        old = write_run(tmp_path / "start", before)
        if alter is not None:
            alter(old)
            save_weights(tmp_path / "start" / WEIGHTS, old.state_dict(), {})
            record = RunRecord.read(tmp_path / "start")
            record.model_copy(update={"model_hash": file_hash(tmp_path / "start" / WEIGHTS)}).write(tmp_path / "start")
        config = config_of(ours, models.get("our_model"), init=tmp_path / "start")
        new, found = fresh(config), fine_tuning_of(config, tmp_path / "own")
        assert found is not None
        found.load(new)
        return old, new, found

    return start


def fresh(config: Config) -> SharedSpecificNet:
    torch.manual_seed(config.train.seed)
    return SharedSpecificNet(config.model, config.task).eval()


def logits(net: SharedSpecificNet, task: Task, names: tuple[str, ...], size: tuple[int, ...] = SIZE) -> Tensor:
    """Return the logits of every combination of these sequences, whose images depend on their names alone."""
    images = [torch.randn(size, generator=torch.Generator().manual_seed(sum(map(ord, m)))) for m in task.modalities]
    subsets = [
        [m in names and bool(number >> names.index(m) & 1) for m in task.modalities]
        for number in range(1, 1 << len(names))
    ]
    with torch.no_grad():
        return net.segment(torch.stack(images)[None], torch.tensor(subsets))[:, 0]


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (Model(width=4, levels=3, deep_supervision=True),
         {"decoder.reduce.weight": (1, None), "decoder.skip.0.weight": (0, None), "decoder.skip.1.weight": (0, None),
          "decoder.deep.0.weight": (None, 0), "decoder.up.0.weight": (None, None),
          "decoder.coarse_head.weight": (None, 1)}),
        (Model(backbone="shaspec"),
         {"decoder.up.0.weight": (0, None), "decoder.up.0.bias": (None, None), "decoder.skip.3.weight": (0, None)}),
    ],
    ids=["light", "shaspec"],
)  # fmt: skip
def test_where_sequences_and_regions_lie_is_found_out(model: Model, known: dict[str, Any]) -> None:
    known |= {"fuse.weight": (None, None), "classify.weight": (0, None), "classify.bias": (0, None)}
    known |= {"decoder.head.weight": (None, 0), "decoder.head.bias": (None, 0)}
    axes = axes_of(model, GLIOMA)
    assert {name: (axes[name].sequences, axes[name].regions) for name in known} == known
    assert {found for name, found in axes.items() if name.startswith("specific.")} == {Axes(0, None)}
    assert {found for name, found in axes.items() if name.startswith("shared.")} == {Axes(None, None)}


def test_a_network_for_the_same_task_is_the_start(started: Started) -> None:
    old, new, found = started(GLIOMA, GLIOMA)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    assert found.taken == old.state_dict().keys()
    assert not found.mixed | found.new | found.skipped
    assert (found.record.new, found.record.skipped) == ((), ())


def test_sequences_are_matched_by_name_and_not_by_place(started: Started) -> None:
    turned = changed(GLIOMA, name="turned", sequences={name: name for name in reversed(GLIOMA.modalities)})
    old, new, _ = started(GLIOMA, turned)
    names = GLIOMA.modalities
    torch.testing.assert_close(logits(new, turned, names), logits(old, GLIOMA, names))
    assert not torch.allclose(logits(fresh(config_of(turned)), turned, names), logits(old, GLIOMA, names))


def test_a_network_of_four_sequences_becomes_one_of_five_that_predicts_the_same_from_the_four(started: Started) -> None:
    old, new, found = started(GLIOMA, FIVE)
    names = GLIOMA.modalities
    torch.testing.assert_close(logits(new, FIVE, names), logits(old, GLIOMA, names))
    assert torch.isfinite(logits(new, FIVE, FIVE.modalities)).all()
    for name, value in old.specific.state_dict().items():
        *four, fifth = new.specific.state_dict()[name].chunk(5)
        assert torch.equal(torch.cat(four), value)
        torch.testing.assert_close(fifth, torch.stack(value.chunk(4)).mean(0))
    assert found.record.new == (NEW_ADC, "the classification of adc")
    assert "specific.levels.0.first.weight" in found.mixed
    assert "decoder.reduce.weight" in found.mixed
    assert "shared.levels.0.conv.weight" in found.taken
    assert "decoder.head.weight" in found.taken


def test_so_does_one_of_the_other_backbone(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STEM": 8, "PLANES": (8, 8, 8, 8), "BLOCKS": (1, 1, 1, 1), "BOTTLENECK": 16,
        "SKIPS": (8, 32, 32, 32), "UP": (8, 8, 8, 8),
    }.items():  # fmt: skip
        monkeypatch.setattr(f"ccsd.model.shaspec.{name}", value)
    monkeypatch.setattr("support.runs.PATCH", [16, 32, 32])
    shaspec, names = {"backbone": "shaspec"}, GLIOMA.modalities
    old, new, _ = started(GLIOMA, FIVE, their_model=shaspec, our_model=shaspec)
    found, expected = (logits(net, task, names, (16, 32, 32)) for net, task in ((new, FIVE), (old, GLIOMA)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_the_classification_of_a_new_sequence_is_drawn(started: Started) -> None:
    old, new, _ = started(GLIOMA, FIVE)
    assert torch.equal(new.classify.weight[:4], old.classify.weight)
    assert torch.equal(new.classify.weight[4], fresh(config_of(FIVE)).classify.weight[4])


def test_what_stood_in_for_sequences_that_are_gone_is_kept(started: Started) -> None:
    """Exactly where the specific features add nothing: what stands in for a sequence are the shared features."""

    def without_fusion(net: SharedSpecificNet) -> None:
        nn.init.zeros_(net.fuse.weight)
        assert net.fuse.bias is not None
        nn.init.zeros_(net.fuse.bias)

    two = task_of("t1ce", "flair", name="two")
    old, new, found = started(GLIOMA, two, without_fusion)
    torch.testing.assert_close(logits(new, two, ("flair", "t1ce")), logits(old, GLIOMA, ("flair", "t1ce")))
    assert found.record.skipped == (f"the specific encoders of t1, t2{SPREAD}",)
    assert found.taken == old.state_dict().keys()


def test_a_sequence_that_was_renamed_is_a_new_one_in_the_place_of_one_that_is_gone(started: Started) -> None:
    names = {"t1c" if name == "t1ce" else name: name for name in GLIOMA.modalities}
    old, new, found = started(GLIOMA, changed(GLIOMA, name="renamed", sequences=names))
    flair, t1, t1ce, t2 = old.decoder.reduce.weight.chunk(4, 1)
    expected = torch.cat([flair + t1ce / 4, t1 + t1ce / 4, t1ce / 4, t2 + t1ce / 4], 1)
    torch.testing.assert_close(new.decoder.reduce.weight, expected)
    assert found.record.new[0] == (
        "the specific encoders of t1c (the mean of those of the start; only what is spread over all in the decoder)"
    )
    assert found.record.skipped == (f"the specific encoders of t1ce{SPREAD}",)


def test_regions_of_the_same_name_and_classes_are_taken_and_others_are_drawn(started: Started) -> None:
    ours = changed(FOURTH, regions={**FOURTH.regions, "TC": ["NCR", "ET", "RC"]})
    old, new, found = started(FIVE, ours)
    drawn = fresh(config_of(ours)).decoder.head
    for name, value in new.decoder.head.state_dict().items():
        assert torch.equal(value[[0, 2]], old.decoder.head.state_dict()[name][[0, 2]])
        assert torch.equal(value[[1, 3]], drawn.state_dict()[name][[1, 3]])
    assert "the outputs for WT, ET" in found.record.taken
    assert found.record.new == ("the outputs for TC, RC",)
    assert found.record.skipped == (f"the specific encoders of t1, t2, adc{SPREAD}", "the outputs for TC")
    assert found.mixed == HEADS


def test_all_outputs_are_new_where_no_region_is_the_same(started: Started) -> None:
    regions, paint = {"A": ["NCR", "ED"], "B": ["ET"], "C": ["NCR"]}, {"A": "ED", "B": "ET", "C": "NCR"}
    other = task_of(*GLIOMA.modalities, name="other", regions=regions, paint=paint)
    _, new, found = started(GLIOMA, other)
    assert found.new == HEADS
    assert torch.equal(new.decoder.head.weight, fresh(config_of(other)).decoder.head.weight)
    assert found.record.new == ("the outputs for A, B, C",)
    assert found.record.skipped == ("the outputs for WT, TC, ET",)


def test_heads_of_deep_supervision_come_and_go(started: Started, tmp_path: Path) -> None:
    deep = {"width": 4, "levels": 3, "deep_supervision": True}
    plain = deep | {"deep_supervision": False}
    _, _, found = started(GLIOMA, GLIOMA, their_model=plain, our_model=deep)
    assert found.new == {"decoder.deep.0.weight", "decoder.deep.0.bias"}
    assert found.record.new == ("the heads of deep supervision",)
    write_run(tmp_path / "deep", config_of(model=deep))
    config = config_of(model=plain, init=tmp_path / "deep")
    found = fine_tuning_of(config, tmp_path)
    assert found is not None
    found.load(fresh(config))
    assert found.skipped == {"decoder.deep.0.weight", "decoder.deep.0.bias"}
    assert found.record.skipped == ("the heads of deep supervision",)


def test_what_happens_is_reported(started: Started) -> None:
    _, _, found = started(GLIOMA, FIVE)
    lines = found.lines(Train(init=Path("x"), steps=20, freeze=0.25, init_rate=0.5))
    assert lines[0].startswith(f"fine-tuning from {found.run.where} (model {found.run.record.model_hash[:12]}, task ")
    assert lines[1] == (
        "  taken: the shared encoder, the fusion and the decoder; the specific encoders of flair, t1, t1ce, t2; the "
        "outputs for WT, TC, ET"
    )
    assert lines[2:4] == [f"  new: {NEW_ADC}; the classification of adc", "  skipped: nothing"]
    assert lines[4] == (
        "  learning rate x 0.5 for weights taken entirely from the start (all except: classify, decoder.reduce, "
        "decoder.skip.0, specific)"
    )
    assert lines[5:] == ["  the encoders are frozen in the first 5 steps"]


def test_weights_that_do_not_fit_their_own_record_are_rejected(tmp_path: Path) -> None:
    write_run(tmp_path / "start", config_of())
    record = RunRecord.read(tmp_path / "start")
    record.model_copy(update={"model_hash": "0"}).write(tmp_path / "start")
    found = fine_tuning_of(config_of(init=tmp_path / "start"), tmp_path)
    assert found is not None
    with pytest.raises(UsageError, match=r"is not the file that run\.json describes"):
        found.load(fresh(config_of()))


def test_a_start_that_was_replaced_after_its_record_was_read_is_rejected(tmp_path: Path) -> None:
    write_run(tmp_path / "start", config_of())
    found = fine_tuning_of(config_of(init=tmp_path / "start"), tmp_path)
    shutil.rmtree(tmp_path / "start")
    write_run(tmp_path / "start", config_of(), seed=6)
    assert found is not None
    with pytest.raises(UsageError, match=r"start was trained again just now; run the same command again"):
        found.load(fresh(config_of()))


def test_a_start_that_was_replaced_before_its_record_was_read_is_rejected(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path / "start", config_of())
    config, process = config_of(init=tmp_path / "start"), SimpleNamespace(device=torch.device("cpu"))
    split = SimpleNamespace(hash="split")
    before = science_digest(config, split.hash)
    shutil.rmtree(tmp_path / "start")
    write_run(tmp_path / "start", config_of(), seed=6)
    given: Any = (config, data, tmp_path / "own", None, split, ("", before), "", process, None, 10)
    with pytest.raises(UsageError, match=r"start was trained again just now"):
        _Training(*given)


def test_without_a_start_there_is_one_group_in_the_order_of_the_network() -> None:
    net = fresh(config_of())
    (group,) = parameter_groups(net, Train(), ())
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]


def test_rates_are_those_of_the_groups_and_encoders_stand_still() -> None:
    module = nn.ModuleDict({"net": fresh(config_of())})
    train = Train(init=Path("x"), steps=10, init_rate=0.5, freeze=0.3, warmup=0)
    names = [name for name, _ in module.named_parameters()]
    taken = [name for name in names if name.startswith(("net.shared", "net.decoder"))]
    groups = parameter_groups(module, train, taken)
    assert sum(len(group["params"]) for group in groups) == len(names)
    engine = SimpleNamespace(optimizer=SimpleNamespace(param_groups=groups))
    for step, still in ((0, True), (2, True), (3, False), (9, False)):
        set_learning_rate(engine, step, train)
        rates = {id(p): group["lr"] for group in groups for p in group["params"]}
        for name, parameter in module.named_parameters():
            share = 0.5 if name in taken else 1.0
            expected = 0.0 if still and name.startswith(("net.shared", "net.specific")) else share
            assert rates[id(parameter)] == expected * learning_rate(step, train), (step, name)


def test_a_task_without_a_common_sequence_is_rejected_also_where_regions_are_common(tmp_path: Path) -> None:
    write_run(tmp_path / "start", config_of(ONE))
    with pytest.raises(
        UsageError, match=r"knows t1ce \(task one\), but the task x has none of them, only t1, t2; encoders "
    ):
        fine_tuning_of(config_of(task_of("t1", "t2", name="x"), init=tmp_path / "start"), tmp_path)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (
            {"width": 8, "levels": 2},
            "has model.width=8, but the configuration model.width=4; .* set model.width=8, or train",
        ),
        ({"width": 4, "levels": 3}, "has model.levels=3, but the configuration model.levels=2"),
        ({"backbone": "shaspec", **SMALL}, "has model.backbone=shaspec, but the configuration model.backbone=light"),
    ],
)
def test_another_network_is_rejected_before_its_weights_are_read(tmp_path: Path, theirs: Any, words: str) -> None:
    folder = tmp_path / "start"
    folder.mkdir()
    other = Config.model_validate(config_of().model_dump() | {"model": theirs, "train": {"patch": [16, 32, 32]}})
    RunRecord(config=other.model_dump(mode="json"), model_hash="x").write(folder)
    with pytest.raises(UsageError, match=words):
        fine_tuning_of(config_of(init=folder), tmp_path)
