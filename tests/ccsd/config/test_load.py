"""Reading the configuration: overrides, experiments, and messages that say what is allowed."""

from pathlib import Path

import pytest

from ccsd.config import Evaluation, load_config
from ccsd.config.load import evaluation_settings
from ccsd.errors import UsageError
from support import ROOT
from support.tasks import GLIOMA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: study\nphantom: {cases: 4}\ntrain: {steps: 10}\n"
        "experiments:\n  ccsd: {}\n  plain: {distillation.method: dropout, train.steps: 20}\n"
    )
    return file


def test_a_network_without_coarser_outputs_cannot_have_deep_supervision(path: Path) -> None:
    with pytest.raises(UsageError, match="deep_supervision needs levels of at least 3: with 2"):
        load_config(path, ["model.deep_supervision=true", "model.levels=2"])
    load_config(path, ["model.deep_supervision=true", "model.levels=3"])
    load_config(path, ["model.deep_supervision=true", "model.levels=2", "model.backbone=shaspec"])


def test_overrides_win_over_the_experiment(path: Path) -> None:
    assert load_config(path).train.steps == 10
    assert load_config(path, experiment="plain").train.steps == 20
    settings = load_config(path, ["train.steps=30", "train.patch=[16, 16, 16]"], experiment="plain")
    assert (settings.train.steps, settings.train.patch) == (30, (16, 16, 16))
    assert settings.distillation.method == "dropout"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=1", r"train\.stepz: unknown key; allowed here: steps, batch_size"),
        ("nonsense=1", "nonsense: unknown key; allowed here: name, source"),
        ("train.workers=1", r"train\.workers: unknown key; use runtime\.workers"),
        ("phantom.colour=red", r"phantom\.colour: unknown key; allowed here: cases"),
        ("train.steps=0", r"train\.steps: Input should be greater than 0 \(got 0\)"),
        ("evaluation.subsets=[flair+t9]", "unknown modality 't9'; allowed: flair"),
        ("evaluation.subsets=['']", "no modality in ''; give at least one of"),
        ("source=here", "give exactly one of 'source'"),
        ("train.steps", "expected KEY=VALUE, for example"),
        ("train.init=", "the value is missing; give one, or null for none"),
        ("=3", "expected KEY=VALUE, for example"),
        ("train.patch=[1", "the value is not valid YAML"),
        (
            "train.patch=[32, 30, 32]",
            "does not fit the network: depth, height and width must be multiples of 16, 16, 16",
        ),
        ("split.train=0.95", "it must be below 1 to leave a test set"),
    ],
)
def test_mistakes_are_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(path, [override])


def test_every_mistake_is_listed(path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(path, ["train.steps=-1", "model.width=0"])
    assert "train.steps" in str(caught.value)
    assert "model.width" in str(caught.value)


def test_unknown_experiment(path: Path) -> None:
    with pytest.raises(UsageError, match="no experiment 'other'; allowed: ccsd, plain"):
        load_config(path, experiment="other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the configuration"),
        ("- a\n", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("name: x\nname: y\nphantom: {}", "given twice"),
        ("name: x\nphantom: {cases: 3, cases: 4}", "given twice"),
        ("name: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("name: !!python/name:os.system", "not valid YAML"),
    ],
)
def test_unusable_files(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_config(file)


@pytest.mark.parametrize("name", ["demo", "config", "ablation"])
def test_shipped_configurations_are_valid(name: str) -> None:
    load_config(ROOT / "config" / f"{name}.yaml")


def test_settings_may_be_shared_by_anchors(tmp_path: Path) -> None:
    text = "experiments:\n  a: &a {train.steps: 3}\n  b: {<<: *a, train.steps: 4, train.augment: false}\n"
    (tmp_path / "study.yaml").write_text(f"name: x\nphantom: {{}}\n{text}")
    found = load_config(tmp_path / "study.yaml").experiments
    assert found == {"a": {"train.steps": 3}, "b": {"train.steps": 4, "train.augment": False}}


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    "key", ["train.learning_rate", "train.weight_decay", "distillation.temperature", "evaluation.hd95_penalty"]
)
def test_numbers_are_finite(key: str, value: str, path: Path) -> None:
    with pytest.raises(UsageError, match=key):
        load_config(path, [f"{key}={value}"])


def test_an_unknown_evaluation_setting_is_not_sent_to_another_section() -> None:
    """`ccsd evaluate --set` accepts only settings of the evaluation."""
    with pytest.raises(UsageError, match=r"evaluation\.steps: unknown key; allowed here: subsets"):
        evaluation_settings(Evaluation(), ["evaluation.steps=3"], GLIOMA)


def test_paths_may_begin_at_the_home_folder(path: Path) -> None:
    """Also if no shell expands it, as in a file."""
    split = "split={list: ~/split.tsv, patients: ~/patients.tsv}"
    settings = load_config(
        path, ["phantom=null", "source=~/BraTS", "predict.source=~/new", "convert.layout=~/mine.yaml", split]
    )
    assert settings.convert.layout == str(Path.home() / "mine.yaml")
    assert settings.predict.source == Path.home() / "new"
    found = (settings.source, settings.split.list, settings.split.patients)
    assert found == tuple(Path.home() / name for name in ("BraTS", "split.tsv", "patients.tsv"))
