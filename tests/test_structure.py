"""What holds for the source as a whole."""

import ast
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ccsd.extras import EXTRAS
from support import ROOT

GENERATED = runpy.run_path(str(ROOT / "docs" / "generate.py"))["files"]()

FORBIDDEN = {"preprocess": {"ccsd", "cluster"}, "cluster": {"ccsd", "preprocess"}, "ccsd": set()}
LONGEST_FILE = 350
LONGEST_FUNCTION = 80
USED_BY_OTHERS = {"pyarrow": "pandas", "tensorboard": "torch"}
"""Dependencies that no module imports, because the package named here does."""
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
"""Calls of the language that run text."""
UNSAFE = {
    ("pickle", "*"), ("marshal", "*"), ("shelve", "*"), ("dill", "*"), ("cloudpickle", "*"), ("joblib", "*"),
    ("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("subprocess", "getstatusoutput"),
    ("torch", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("yaml", "load_all"), ("tempfile", "mktemp"),
}  # fmt: skip


def _sources() -> list[Path]:
    return [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path): names for path in files if (names := _imported(path) & FORBIDDEN[package])}
    assert not wrong


def test_the_import_test_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("def work():\n    from ccsd.config import Config\n    import cluster.launch\n")
    assert _imported(source) == {"ccsd", "cluster"}


def test_files_and_functions_stay_small() -> None:
    long = []
    for path in _sources():
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(str(path))
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        long += [f"{path}:{f.name}" for f in functions if (f.end_lineno or 0) - f.lineno >= LONGEST_FUNCTION]
    assert not long


def test_source_is_ascii() -> None:
    strange = [str(path) for path in _sources() if not path.read_text(encoding="utf-8").isascii()]
    assert not strange


def offences(source: str) -> Iterator[str]:
    """Yield what runs code from data or text through a shell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in modules if (name.partition(".")[0], "*") in UNSAFE)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in RUNS_CODE:
            yield called.id
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name = (called.value.id, called.attr)
            loader = [arg.id for arg in node.args[1:] if isinstance(arg, ast.Name)]
            if name in UNSAFE or (name == ("yaml", "load") and loader != ["_Loader"]):
                yield ".".join(name)
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield "shell=True"


def test_no_code_is_run_from_data_or_through_a_shell() -> None:
    found = {str(path): list(offences(path.read_text(encoding="utf-8"))) for path in _sources()}
    assert len(found) > 100
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "eval('1')", "import os\nos.system('x')", "yaml.load(t, yaml.Loader)",
     "torch.load(p)", "run('x', shell=True)", "yaml.load(text)", "import cloudpickle"],
)  # fmt: skip
def test_the_scan_sees_what_is_forbidden(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize("path", list(GENERATED), ids=str)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], "run `python docs/generate.py`"


def test_references_show_neither_hidden_options_nor_types_of_python() -> None:
    text = "".join(content for path, content in GENERATED.items() if path.suffix == ".md")
    assert not re.findall(r"--science|Optional|tuple\b|\bint\b|\bstr\b|``", text)


def test_the_profile_is_where_snakemake_looks_for_it() -> None:
    link = ROOT / "slurm"
    assert link.is_symlink()
    assert link.readlink() == Path("cluster/slurm")
    assert (link / "profile.yaml").is_file()


def _requirements(*extras: str) -> dict[str, Requirement]:
    """Return what is listed under the extras, without any extra what the core needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["optional-dependencies"][extra] for extra in extras] or [project["dependencies"]]
    listed = map(Requirement, chain(*lists))
    return {canonicalize_name(one.name): one for one in listed if one.name != project["name"]}


def _pins() -> dict[str, str]:
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def test_what_is_imported_is_listed_and_the_other_way_round() -> None:
    ours = set(FORBIDDEN) | set(sys.stdlib_module_names)
    names = set().union(*map(_imported, _sources())) - ours
    packages = metadata.packages_distributions()
    imported = {canonicalize_name(packages.get(name, [name])[0]) for name in names}
    listed = set(_requirements() | _requirements(*EXTRAS)) - set(USED_BY_OTHERS)
    optional = set(_requirements("mlflow", "wandb")) | {"triton"}  # which torch brings for GPUs
    assert imported - optional == listed
    assert set(USED_BY_OTHERS.values()) <= imported


def test_what_is_listed_has_an_exact_version_within_its_range() -> None:
    pins = _pins()
    for name, requirement in (_requirements() | _requirements(*EXTRAS, "dev")).items():
        assert requirement.specifier.contains(pins[name]), requirement


def test_what_an_extra_adds_is_what_commands_look_for() -> None:
    modules = {name.replace("-", "_") for name in _requirements(*EXTRAS)}
    assert modules == {name for names in EXTRAS.values() for name in names}
