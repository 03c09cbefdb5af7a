"""How networks and objectives of others are found, and what is said where they are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccsd.cli import app
from ccsd.config import Config
from ccsd.config.load import load_config, plugins_of, validate_config
from ccsd.config.science import science_digest
from ccsd.errors import UsageError
from ccsd.model import build_network
from ccsd.plugins.find import BACKBONE, KINDS, OBJECTIVE, find
from ccsd.study import Study
from support.first import first_config
from support.tasks import GLIOMA

BASE = {"name": "x", "phantom": {}}


def config(**model: object) -> Config:
    return Config.model_validate({**BASE, "model": model})


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({}, "4dd1293faa1fc5e9"),
        ({"model": {"backbone": "shaspec"}}, "6e0e5b05a05b3ff3"),
        (
            {
                "model": {"backbone": "unet", "width": 8, "deep_supervision": True},
                "distillation": {"method": "dropout"},
                "train": {"steps": 5},
            },
            "fd57019d5e34901e",
        ),
    ],
)
def test_finished_studies_stay_finished(settings: dict[str, dict[str, object]], digest: str) -> None:
    """The digests are those of the version before there were plugins."""
    assert science_digest(first_config(settings), "split") == digest


def test_name_and_options_are_part_of_the_digest(installed: Path) -> None:
    given = [{}, {"backbone": "mean"}, {"backbone": "concat"}, {"backbone": "mean", "options": {"width": 4}}]
    digests = {science_digest(config(**model), "split") for model in given}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("kind", "name", "module"),
    [
        (BACKBONE, "mean", "example_plugin.backbone"),
        (BACKBONE, "example_plugin.network:Concatenation", "example_plugin.network"),
        (OBJECTIVE, "one-subset", "example_plugin.objective"),
    ],
)
def test_it_is_found_by_entry_point_and_by_path(kind: object, name: str, module: str, installed: Path) -> None:
    found = find(kind, name)
    assert (found.module, found.distribution, found.version) == (module, "example-plugin", "1.0")
    assert len(found.record.source) == 16


def test_a_module_that_is_not_installed_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("class Net: ...")
    monkeypatch.syspath_prepend(tmp_path)
    found = find(BACKBONE, "beside:Net")
    assert (found.distribution, found.record.distribution) == ("", "")
    assert "not installed, source " in str(found.record)
    before = found.record.source
    (tmp_path / "beside.py").write_text("class Net: pass")
    assert found.record.source != before


def test_packages_are_not_imported_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node reads the configuration; it may have nothing of what the package needs."""
    package = tmp_path / "of_gpus/deep"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("import no_such_module_here")
    (package / "net.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = find(BACKBONE, "of_gpus.deep.net:Net")
    assert len(found.record.source) == 16
    for missing in ("of_gpus.deep.nets", "of_gpus.deep.net.net", "of_gpus.json"):
        with pytest.raises(UsageError, match=f"no module {missing}"):
            find(BACKBONE, f"{missing}:Net")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"no such {noun}; ours: {ours}; entry points of the group {group}: none; or package\.module:fac"),
        ("nothing.at.all:Net", r"no module nothing\.at\.all is found by .*; a module must be installed .* PYTHONPATH"),
    ],
)
def test_what_is_not_there_is_rejected_with_what_there_is(kind: object, name: str, message: str) -> None:
    expected = message.format(noun=kind.noun, group=kind.group, ours=", ".join(kind.built_in))
    with pytest.raises(UsageError, match=f"{kind.key}={name}: (there is )?{expected}"):
        find(kind, name)


def test_installed_ones_are_named(installed: Path) -> None:
    with pytest.raises(UsageError, match=r"concat \(of example-plugin\), mean \(of example-plugin\)"):
        find(BACKBONE, "meen")


def test_two_packages_of_one_name_are_rejected(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "rival-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text("[ccsd.backbones]\nmean = rival:Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"several packages offer this name, example-plugin .* and rival \(rival:Net"):
        find(BACKBONE, "mean")


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        ("import nowhere_at_all", "own:Net", {}, "importing own failed: ModuleNotFoundError: No module named 'nowhere"),
        ("1 / 0", "own:Net", {}, "importing own failed: ZeroDivisionError"),
        ("def Net(task): ...", "own:Nett", {}, "own has no Nett; it has: Net"),
        ("Net = 3", "own:Net", {}, "cannot be called"),
        (
            "def Net(task, width=3): ...",
            "own:Net",
            {"wide": 1},
            r"Net\(task, width=3\) is called .*unexpected keyword",
        ),
        (
            "def Net(task): [][1]",
            "own:Net",
            {},
            "its factory failed: IndexError: list index out of range; CCSD_DEBUG=1",
        ),
        ("def Net(task): ...", "own:Net", {}, r"returned NoneType, expected a torch\.nn\.Module"),
        ("def Net(task, task2): ...", "own:Net", {}, "missing a required argument: 'task2'"),
    ],
)
def test_a_plugin_that_cannot_be_built_says_why(
    text: str, name: str, options: dict[str, int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    with pytest.raises(UsageError, match=message):
        build_network(config(backbone=name, options=options).model, GLIOMA)
    sys.modules.pop("own", None)


@pytest.mark.parametrize(
    ("section", "settings"),
    [("model", {"backbone": "meen"}), ("distillation", {"method": "cssd"}), ("model", {"backbone": "no.where:Net"})],
)
def test_a_study_is_rejected_at_once(section: str, settings: dict[str, str], tmp_path: Path) -> None:
    raw = {**BASE, section: settings}
    (tmp_path / "study.yaml").write_text(json.dumps(raw))
    for attempt in (
        lambda: validate_config(raw, "c"),
        lambda: load_config(tmp_path / "study.yaml"),
        lambda: Study.from_mapping(raw),
    ):
        with pytest.raises(UsageError, match=rf"the configuration cannot be used:\n  {section}\.\w+="):
            attempt()
    experiment = {f"{section}.{key}": value for key, value in settings.items()}
    with pytest.raises(UsageError, match="with experiment own: the configuration cannot be used"):
        Study.from_mapping({**BASE, "experiments": {"own": experiment}})


def test_options_of_our_own_networks_are_rejected() -> None:
    for section, name in (("model", "light"), ("distillation", "ccsd")):
        with pytest.raises(ValueError, match=rf"{section}\.options are for a \w+ of your own, but .* is {name}"):
            Config.model_validate({**BASE, section: {"options": {"width": 3}}})


def test_options_can_be_set_one_by_one(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps({**BASE, "experiments": {"a": {"model.backbone": "mean"}}}))
    found = load_config(tmp_path / "study.yaml", ["model.options.width=4"], "a")
    assert found.model.options == {"width": 4}
    assert [plugin.name for plugin in plugins_of(found)] == ["mean"]


def test_to_look_for_a_plugin_loads_no_torch(installed: Path) -> None:
    code = (
        "import sys; from ccsd.config.load import validate_config; "
        "validate_config({'name': 'x', 'phantom': {}, 'model': {'backbone': 'mean'}}, 'c'); "
        "assert 'ccsd.plugins.find' in sys.modules; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_command_line_rejects_before_it_looks_at_data(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(BASE))
    words = ["train", "--config", str(tmp_path / "study.yaml"), "--data", "nowhere", "--run", "run"]
    done = CliRunner().invoke(app, [*words, "--set", "model.backbone=meen"])
    assert isinstance(done.exception, UsageError)
    assert "model.backbone=meen: there is no such backbone" in str(done.exception)
