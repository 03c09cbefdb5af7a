"""Networks of plugins, as objectives, inference and fine-tuning see them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccsd.config import Config
from ccsd.distillation.own import PluginObjective, build_objective
from ccsd.distillation.schedule import draw_step
from ccsd.errors import UsageError
from ccsd.inference.predict import predict
from ccsd.model import Network, build_network, load_model
from ccsd.model.weights import load_weights, save_weights
from ccsd.records import RunRecord
from ccsd.training.fine_tuning import fine_tuning_of
from preprocess.task import Task
from support.runs import config_of, write_run
from support.tasks import GLIOMA, changed, task_of

SHAPE = (3, 4, 8, 8, 8)
AVAILABLE = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
METHODS = ("ccsd", "hmsd", "dmcd", "dropout", "full", "one-subset")


@pytest.fixture
def image() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def label() -> Tensor:
    return torch.randint(0, 4, (3, 8, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def settings(backbone: str, method: str = "ccsd", **sections: Any) -> Config:
    raw = {"name": "x", "phantom": {}, "task": GLIOMA.model_dump(mode="json"), "distillation": {"method": method}}
    train = {"patch": [8, 8, 8], "precision": "fp32"}
    return Config.model_validate({**raw, "model": {"backbone": backbone}, "train": train, **sections})


def network(backbone: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network(config_of(model={"backbone": backbone, "options": options}).model, GLIOMA).eval()


def outputs(
    config: Config, image: Tensor, label: Tensor, rows: slice = slice(None), step: int = 3
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    objective = build_objective(config)
    torch.seed()  # as an earlier part of a training may have left it
    samples = [0, 1, 2][rows]
    draw = draw_step(
        config.distillation, config.task, AVAILABLE[rows], seed=0, step=step, total_steps=9, samples=samples
    )
    found: dict[str, Tensor] = objective(image[rows], label[rows], AVAILABLE[rows], draw)
    return found


@pytest.mark.parametrize("name", ["mean", "concat"])
def test_nothing_absent_reaches_the_logits(name: str, image: Tensor, installed: Path) -> None:
    net = network(name)
    subsets = AVAILABLE[None]
    right = net.decode(net.encode(image, AVAILABLE), subsets, 1)
    unseen = torch.where(AVAILABLE[..., None, None, None], image, torch.nan)
    assert torch.equal(net.decode(net.encode(unseen, AVAILABLE), subsets, 1), right)
    one = torch.tensor([[0, 1, 0, 0]], dtype=torch.bool)
    seen = net.segment(image, one)
    image[:, [0, 2, 3]] = torch.nan
    assert torch.equal(net.segment(image, one), seen)


@pytest.mark.parametrize("name", ["mean", "concat"])
@pytest.mark.parametrize("decode_batch", [1, 4, 20])
def test_rounds_of_decoding_change_nothing(name: str, decode_batch: int, image: Tensor, installed: Path) -> None:
    net = network(name)
    subsets = torch.tensor([[n >> m & 1 for m in range(4)] for n in range(1, 16)], dtype=torch.bool)
    together = net.segment(image, subsets, decode_batch)
    assert together.shape == (15, 3, 3, 8, 8, 8)
    apart = torch.cat([net.segment(image, subset[None]) for subset in subsets])
    assert torch.allclose(together, apart, atol=1e-5)
    assert len({float(z.detach().sum()) for z in apart}) == 15


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_composes_learns_by_every_method(
    method: str, image: Tensor, label: Tensor, installed: Path
) -> None:
    found = outputs(settings("mean", method), image, label)
    found["loss"].backward()
    assert len(found["removed"]) == (3 if method in ("ccsd", "dmcd") else 0)


@pytest.mark.parametrize("method", METHODS)
def test_any_network_learns_by_methods_that_do_not_compose(
    method: str, image: Tensor, label: Tensor, installed: Path
) -> None:
    if method in ("ccsd", "hmsd", "dmcd"):
        with pytest.raises(
            UsageError, match=rf"method={method} .*concat has no encode.* Use .*=dropout or full, or your own obj"
        ):
            outputs(settings("concat", method), image, label)
        return
    assert outputs(settings("concat", method), image, label)["loss"].isfinite()


@pytest.mark.parametrize("backbone", ["mean", "light"])
@pytest.mark.parametrize("method", ["ccsd", "dropout", "one-subset"])
def test_parts_of_a_batch_make_the_whole(
    backbone: str, method: str, image: Tensor, label: Tensor, installed: Path
) -> None:
    model = {"width": 4, "levels": 2} if backbone == "light" else {"backbone": backbone}
    config = settings("", method, model=model)
    whole = outputs(config, image, label)
    parts = [outputs(config, image, label, slice(i, i + 1)) for i in range(3)]
    for name in whole.keys() - {"removed", "scored"}:
        mean = torch.stack([part[name].detach() for part in parts]).mean()
        assert torch.allclose(whole[name].detach(), mean, rtol=1e-4), name


@pytest.mark.parametrize(("backbone", "method"), [("mean", "ccsd"), ("concat", "dropout")])
def test_decoding_one_by_one_gives_the_same_gradients(
    backbone: str, method: str, image: Tensor, label: Tensor, installed: Path
) -> None:
    gradients = []
    for most in (1, 8):
        model = {"backbone": backbone, **({"options": {"dropout": 0}} if backbone == "concat" else {})}
        config = settings("", method, model=model, runtime={"decode_batch": most})
        torch.manual_seed(0)
        objective = build_objective(config)
        draw = draw_step(
            config.distillation, GLIOMA, AVAILABLE, seed=0, step=0, total_steps=1, samples=range(len(AVAILABLE))
        )
        objective(image, label, AVAILABLE, draw)["loss"].backward()
        gradients.append([p.grad for p in objective.net.parameters() if p.grad is not None])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))


def test_layers_that_draw_draw_the_same_in_the_same_step(image: Tensor, label: Tensor, installed: Path) -> None:
    config = settings("concat", "dropout", model={"backbone": "concat", "options": {"dropout": 0.5}})
    one, again, later = (outputs(config, image, label, step=step)["loss"] for step in (3, 3, 4))
    assert one == again
    assert one != later


def test_coarser_outputs_are_supervised_in_training_alone(image: Tensor, label: Tensor, installed: Path) -> None:
    net = network("concat")
    assert len(net.decode_levels(image, AVAILABLE[None], 1)) == 1
    assert [tuple(level.shape) for level in net.train().decode_levels(image, AVAILABLE[None], 1)] == [
        (1, 3, 3, 8, 8, 8), (1, 3, 3, 4, 4, 4),
    ]  # fmt: skip


class Faulty(nn.Module):
    """Any network with one fault."""

    multiple: Any = (1, 1, 1)

    def __init__(self, task: Task, fault: str) -> None:
        super().__init__()
        self.fault, self.scale = fault, nn.Parameter(torch.ones(1), requires_grad=fault != "frozen")
        if fault == "multiple":
            self.multiple = 8
        if fault == "large":
            self.multiple = (16, 8, 8)
        if fault == "tied":
            self.same = self.scale
        if fault == "lazy":
            self.head = nn.LazyConv3d(3, 1)
        if fault == "half":
            self.encode = self.forward

    def forward(self, image: Tensor, available: Tensor) -> Any:
        logits = self.scale * image[:, :3]
        found = {"classes": image * self.scale, "none": None, "empty": [], "broadcast": [logits, logits[:, :1]]}
        return found.get(self.fault, logits)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("classes", r"returned logits of 2 x 4 x 8 x 8 x 8, expected 2 x 3 x 8 x 8 x 8; .* `ccsd check-plugin`"),
        ("none", "returned NoneType, expected logits or a list"),
        ("empty", "returned list, expected logits or a list"),
        ("broadcast", r"returned coarser logits \(number 2 of 2\) of 2 x 1 x 8 x 8 x 8, expected 2 x 3 x a coarser s"),
        ("tied", "same is scale under another name, .*; register a shared module only once"),
        ("lazy", r"head\.weight, head\.bias have no size yet, .*; give lazy layers their channels"),
        ("multiple", "its attribute `multiple` is 8, expected three whole numbers"),
        ("large", r"train\.patch \[8, 8, 8\] does not fit the network: .* must be multiples of 16, 8, 8"),
        ("half", "has encode but not compose, decode"),
        ("frozen", "scale are parameters that do not learn, .*; register them as buffers"),
    ],
)
def test_a_network_that_does_not_keep_to_the_interface_is_rejected(
    fault: str, message: str, image: Tensor, label: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faulty", sys.modules[__name__])
    module = type("Found", (), {"build": lambda _, task, options: Faulty(task, **options)})
    monkeypatch.setattr("ccsd.model.plugin.find", lambda *_: module())
    model = {"backbone": "faulty:Faulty", "options": {"fault": fault}}
    with pytest.raises(UsageError, match=message):
        outputs(settings("", "dropout", model=model), image, label, slice(0, 2))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.ones(()), "returned Tensor, expected the loss and a mapping"),
        ((torch.ones(2), {}), r"the loss has shape \[2\], expected a scalar"),
        ((torch.ones(()), {"a": 3.0}), "a has float, expected a scalar"),
        ((torch.ones(()), {"removed": torch.ones(())}), "a term is called removed, which is reserved"),
    ],
)
def test_an_objective_that_does_not_keep_to_the_interface_is_rejected(
    returned: Any, message: str, image: Tensor, label: Tensor
) -> None:
    objective = PluginObjective("own", network_of_ours(), lambda *_: returned, GLIOMA, "fp32")
    draw = draw_step(config_of().distillation, GLIOMA, AVAILABLE, seed=0, step=0, total_steps=1, samples=[0, 1, 2])
    with pytest.raises(UsageError, match=rf"distillation\.method=own: {message}"):
        objective(image, label, AVAILABLE, draw)


def test_terms_have_the_same_names_in_every_step(image: Tensor, label: Tensor) -> None:
    names = iter("ab")
    objective = PluginObjective(
        "own", network_of_ours(), lambda *_: (torch.ones(()), {next(names): torch.ones(())}), GLIOMA, "fp32"
    )
    draw = draw_step(config_of().distillation, GLIOMA, AVAILABLE, seed=0, step=0, total_steps=1, samples=[0, 1, 2])
    objective(image, label, AVAILABLE, draw)
    with pytest.raises(UsageError, match="its terms are b, but were a in an earlier step"):
        objective(image, label, AVAILABLE, draw)


def network_of_ours() -> Network:
    return build_network(config_of().model, GLIOMA)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"runtime": {"compile": True}}, "runtime.compile"),
        ({"runtime": {"activation_checkpointing": True}}, "runtime.activation_checkpointing"),
        ({"train": {"patch": [8, 8, 8], "init": "somewhere", "freeze": 0.5}}, "train.freeze"),
    ],
)
def test_settings_about_parts_of_our_networks_are_rejected(sections: dict[str, Any], key: str, installed: Path) -> None:
    with pytest.raises(UsageError, match=f"{key} acts on parts of our own networks, which .*mean does not"):
        build_objective(settings("mean", **sections))


def plugin_run(folder: Path, backbone: str = "mean", task: Task = GLIOMA, **options: Any) -> Config:
    from ccsd.config.load import plugins_of

    config = config_of(task, {"backbone": backbone, "options": options})
    write_run(folder, config, plugins=tuple(plugin.record for plugin in plugins_of(config)), split_hash="s")
    return config


def test_a_run_is_read_back_and_another_version_is_told(
    tmp_path: Path, image: Tensor, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_run(tmp_path / "run")
    one = load_model(tmp_path / "run").net.segment(image, AVAILABLE[:1])
    assert capsys.readouterr().err == ""
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["plugins"][0].items() >= {"name": "mean", "distribution": "example-plugin", "version": "1.0"}.items()
    record["plugins"][0]["version"] = "0.9"
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    assert torch.equal(load_model(tmp_path / "run").net.segment(image, AVAILABLE[:1]), one)
    note = capsys.readouterr().err
    assert "was trained with the backbone mean (example-plugin 0.9, source" in note
    assert "here it is the backbone mean (example-plugin 1.0, source" in note


def test_a_run_whose_plugin_is_missing_says_so(tmp_path: Path, site: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        plugin_run(tmp_path / "run")
    assert RunRecord.read(tmp_path / "run").settings(tmp_path).model.backbone == "mean"
    message = r"run: trained with the backbone mean \(example-plugin 1\.0, .* cannot be used here: .*no such backbone"
    with pytest.raises(UsageError, match=message):
        load_model(tmp_path / "run")


def test_new_cases_are_segmented(tmp_path: Path, cohort: Path, installed: Path) -> None:
    plugin_run(tmp_path / "run", "concat")
    (case, *_) = sorted(path for path in cohort.iterdir() if path.is_dir())
    (outcome,) = predict([case], tmp_path / "out.nii.gz", tmp_path / "run")
    assert outcome.error is None
    assert (tmp_path / "out.nii.gz").is_file()


@pytest.mark.parametrize("name", ["mean", "concat"])
def test_fine_tuning_takes_what_has_the_same_name_and_shape(name: str, tmp_path: Path, installed: Path) -> None:
    plugin_run(tmp_path / "start", name)
    config = config_of(GLIOMA, {"backbone": name}, init=tmp_path / "start")
    start = fine_tuning_of(config, tmp_path / "run")
    assert start is not None
    net = build_network(config.model, GLIOMA)
    start.load(net)
    before = load_model(tmp_path / "start").net.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert start.lines(config.train)[2:4] == ["  new: nothing", "  skipped: nothing"]


def test_fine_tuning_for_other_regions_starts_their_outputs_anew(tmp_path: Path, installed: Path) -> None:
    regions = {"all": ("NCR", "ED", "ET"), "core": ("NCR", "ET"), "bright": ("ET",)}
    other = changed(GLIOMA, regions=regions, paint={"all": "ED", "core": "NCR", "bright": "ET"}, cleanup={})
    plugin_run(tmp_path / "start")
    start = fine_tuning_of(config_of(other, {"backbone": "mean"}, init=tmp_path / "start"), tmp_path / "run")
    assert start is not None
    assert start.new == {"network.head.weight", "network.head.bias"}
    assert start.skipped == start.new
    assert "network.fine.0.0.weight" in start.taken


def test_fine_tuning_takes_what_other_options_leave(tmp_path: Path, installed: Path) -> None:
    plugin_run(tmp_path / "start", width=4)
    config = config_of(GLIOMA, {"backbone": "mean", "options": {"width": 8}}, init=tmp_path / "start")
    start = fine_tuning_of(config, tmp_path / "run")
    assert start is not None
    assert start.taken == {"network.head.bias"}
    start.load(build_network(config.model, GLIOMA))


def test_fine_tuning_for_other_sequences_is_rejected(tmp_path: Path, installed: Path) -> None:
    plugin_run(tmp_path / "start")
    config = config_of(task_of("t1", "t2", name="x"), {"backbone": "mean"}, init=tmp_path / "start")
    with pytest.raises(UsageError, match=r"has t1, t2; for model\.backbone=mean it is unknown which weights belong"):
        fine_tuning_of(config, tmp_path / "run")


def test_a_view_is_saved_like_any_other_buffer(tmp_path: Path) -> None:
    view = torch.arange(6.0).view(2, 3).t()
    save_weights(tmp_path / "model.safetensors", {"view": view}, {})
    assert torch.equal(load_weights(tmp_path / "model.safetensors")[0]["view"], view)
