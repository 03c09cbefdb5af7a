"""What holds for the source as a whole."""

import ast
from pathlib import Path

import pytest

from ccsd import reference

FORBIDDEN = {"preprocess": {"ccsd", "cluster"}, "cluster": {"ccsd", "preprocess"}, "ccsd": set()}
LONGEST_FILE = 500
LONGEST_FUNCTION = 80


def _sources(root: Path) -> list[Path]:
    return [path for package in FORBIDDEN for path in sorted((root / package).rglob("*.py"))]


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str, root: Path) -> None:
    files = sorted((root / package).rglob("*.py"))
    assert files
    wrong = {str(path): names for path in files if (names := _imported(path) & FORBIDDEN[package])}
    assert not wrong


def test_the_import_test_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("def work():\n    from ccsd.config import Config\n    import cluster.launch\n")
    assert _imported(source) == {"ccsd", "cluster"}


def test_files_and_functions_stay_small(root: Path) -> None:
    long = []
    for path in _sources(root):
        text = path.read_text()
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(str(path))
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        long += [f"{path}:{f.name}" for f in functions if (f.end_lineno or 0) - f.lineno >= LONGEST_FUNCTION]
    assert not long


def test_source_is_ascii(root: Path) -> None:
    strange = [str(path) for path in _sources(root) if not path.read_text(encoding="utf-8").isascii()]
    assert not strange


@pytest.mark.parametrize("path", list(reference.files()), ids=str)
def test_generated_files_are_up_to_date(path: Path, root: Path) -> None:
    assert (root / path).read_text(encoding="utf-8") == reference.files()[path], "run `python -m ccsd.reference`"


def test_the_profile_is_where_snakemake_looks_for_it(root: Path) -> None:
    link = root / "slurm"
    assert link.is_symlink()
    assert link.readlink() == Path("cluster/slurm")
    assert (link / "profile.yaml").is_file()
