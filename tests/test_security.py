"""Data, models and settings run no code, leave no folder, open no file to more people, and tell no secret."""

import ast
import gzip
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ccsd.errors import UsageError
from ccsd.snakemake import convert_options, split_options
from ccsd.study import Study
from cluster.settings import JobSettings
from preprocess.audit import audit, write_audit
from preprocess.convert import convert
from preprocess.errors import InputError
from preprocess.restore import write_restored
from preprocess.source.accounts import find_cases
from preprocess.source.layouts import discover
from preprocess.splits import read_list
from preprocess.store.reader import CaseStore, store_path

PACKAGES = ("ccsd", "cluster", "preprocess")
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
"""Calls of the language that run text."""
FORBIDDEN = {
    ("pickle", "*"), ("marshal", "*"), ("shelve", "*"), ("dill", "*"), ("cloudpickle", "*"), ("joblib", "*"),
    ("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("subprocess", "getstatusoutput"),
    ("torch", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("yaml", "load_all"), ("tempfile", "mktemp"),
}  # fmt: skip


def offences(source: str) -> Iterator[str]:
    """Yield what runs code from data or text through a shell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in modules if (name.partition(".")[0], "*") in FORBIDDEN)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in RUNS_CODE:
            yield called.id
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name = (called.value.id, called.attr)
            loader = [arg.id for arg in node.args[1:] if isinstance(arg, ast.Name)]
            if name in FORBIDDEN or (name == ("yaml", "load") and loader != ["_Loader"]):
                yield ".".join(name)
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield "shell=True"


def test_no_code_is_run_from_data_or_through_a_shell(root: Path) -> None:
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    assert len(files) > 100
    found = {str(path): list(offences(path.read_text(encoding="utf-8"))) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "eval('1')", "import os\nos.system('x')", "yaml.load(t, yaml.Loader)",
     "torch.load(p)", "run('x', shell=True)", "yaml.load(text)", "import cloudpickle"],
)  # fmt: skip
def test_the_scan_sees_what_is_forbidden(source: str) -> None:
    assert list(offences(source))


def test_the_yaml_loader_makes_plain_values_only() -> None:
    import yaml

    from preprocess import reading

    assert issubclass(reading._Loader, yaml.SafeLoader)
    for tag in ("!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"):
        with pytest.raises(yaml.YAMLError):
            reading.read_yaml(tag)


ESCAPES = ("../x", "/tmp/x", "a/../../x", "..", ".", "", "a\0b", "a\nb", "a\tb", "x" * 300, "\udcff", "a\u2028b")
HOSTILE = (
    "-rf",
    "$(touch owned)",
    "`touch owned`",
    "a; touch owned",
    "<script>alert(1)</script>",
    "'\"><img src=x>",
    "%s{0}",
)


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
def test_a_case_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "split.tsv").write_text(f"case\tsplit\n{name}\ttrain\n", errors="surrogateescape")
    with pytest.raises(InputError):
        read_list(tmp_path / "split.tsv")
    for work in (store_path, CaseStore, lambda root, case: write_restored(root, case, root / "out")):
        with pytest.raises(InputError, match="cannot be the name of a case"):
            work(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == ["split.tsv"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from preprocess.phantom.cohort import write_cohort

    folder = tmp_path_factory.mktemp("cohort")
    list(write_cohort(folder, cases=1, size=32, seed=1))
    return folder


class Tags(HTMLParser):
    """All elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_hostile_names_are_names_and_nothing_else(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that a shell, an option parser or a browser would act on pass through every stage as they are."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in HOSTILE if "/" not in name]
    (original,) = discover(cohort)
    for name in names:
        folder = tmp_path / "src" / name
        folder.mkdir(parents=True)
        for key, path in {**original.images, "seg": original.label}.items():
            (folder / f"{name}_{key}.nii.gz").symlink_to(path)
    assert [
        o.case for o in convert(tmp_path / "src", tmp_path / "dest", labels="brats2020") if o.status == "converted"
    ] == sorted(names)
    found = find_cases(tmp_path / "src")
    write_audit(audit(found.cases), found.files, tmp_path / "audit")
    page = Tags((tmp_path / "audit" / "audit.html").read_text())
    assert not [tag for tag, _ in page.found if tag == "script"]
    assert all(str(dict(attrs)["src"]).startswith("data:image/") for tag, attrs in page.found if tag == "img")
    for name in names:
        written = write_restored(tmp_path / "dest", name, tmp_path / "out")
        assert {path.parent for path in written} == {tmp_path / "out"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "dest", "out", "src"]


def test_a_file_with_an_impossible_name_is_one_message(cohort: Path, tmp_path: Path) -> None:
    (original,) = discover(cohort)
    for bad in (b"a\tb_t1.nii.gz", b"\xff\xfe_t1.nii.gz", b"x" * 200 + b"_t1.nii.gz"):
        path = tmp_path / os.fsdecode(bad)
        path.symlink_to(original.images["t1"])
        with pytest.raises(InputError, match="rename it"):
            discover(tmp_path)
        path.unlink()


PLAIN = {"threads", "params.part", "wildcards.experiment", "wildcards.seed", "params.options", "params.job"}
"""Numbers, names that wildcard_constraints hold to letters and digits, and options that are quoted one by one."""


def test_every_value_in_a_shell_command_is_quoted(root: Path) -> None:
    text = "".join(path.read_text() for path in sorted((root / "workflow/rules").glob("*.smk")))
    commands = re.findall(r"shell:\n((?: {8}.*\n)+)", text)
    values = [value for command in commands for value in re.findall(r"\{([^}]*)\}", command)]
    assert len(commands) >= 6
    loose = {value for value in values if not value.endswith(":q") and not value.startswith("resources.")}
    assert loose <= PLAIN


@pytest.mark.parametrize("hostile", HOSTILE)
def test_options_of_the_rules_are_quoted_one_by_one(hostile: str) -> None:
    raw = {"name": "x", "source": hostile, "convert": {"allow": [hostile]}, "split": {"list": hostile}}
    study = Study.from_mapping(raw)
    assert shlex.split(convert_options(study)) == ["--allow", hostile]
    assert shlex.split(split_options(study))[:2] == ["--list", str(Path(hostile))]
    assert str(study.source) == str(Path(hostile))


@pytest.mark.parametrize("name", [*HOSTILE, *ESCAPES])
def test_studies_and_experiments_have_plain_names(name: str) -> None:
    for raw in ({"name": name}, {"name": "x", "experiments": {name: {}}}):
        with pytest.raises(UsageError):
            Study.from_mapping({"phantom": {}, **raw})


@pytest.mark.parametrize("hostile", ["a\n#SBATCH --uid=0", "$(id)", "a b"])
def test_settings_of_a_job_cannot_add_lines_to_its_script(
    hostile: str, tmp_path: Path, batch_script: Callable[..., str]
) -> None:
    text = batch_script(JobSettings(cluster="slurm", partition="p"), hostile, tmp_path / hostile.replace("/", ""))
    plain = batch_script(JobSettings(cluster="slurm", partition="p"), "plain", tmp_path)
    assert text.count("#SBATCH") >= plain.count("#SBATCH")


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002], ids=oct)
def test_what_is_written_follows_the_umask(umask: int, cohort: Path, tmp_path: Path) -> None:
    """Files as readable as the user's others: a group's members read them, and a study of a hospital stays its own."""
    before = os.umask(umask)
    try:
        write_one_of_each(cohort, tmp_path / "out")
    finally:
        os.umask(before)
    found = modes(tmp_path / "out")
    assert len(found) > 15
    for name, mode in found.items():
        full = 0o777 if (tmp_path / "out" / name).is_dir() else 0o666
        assert mode == full & ~umask, f"{name}: {mode:o}"


def write_one_of_each(cohort: Path, out: Path) -> None:
    import torch

    from ccsd.evaluation.tables import write_metrics
    from ccsd.inference.labelmaps import write_labelmap
    from ccsd.model.weights import save_weights
    from ccsd.records import EvaluationRecord, Identity
    from preprocess.dataset import write_tables
    from preprocess.files import write_text
    from preprocess.splits import Split

    convert(cohort, out / "data")
    (case,) = write_tables(out / "data")
    write_text(out / "data" / "split.tsv", Split((case,), (), ()).as_tsv())
    found = find_cases(cohort)
    write_audit(audit(found.cases), found.files, out / "audit")
    write_restored(out / "data", case, out / "restored")
    store = CaseStore(out / "data", case)
    write_labelmap(out / "p" / "a.nii.gz", store.read_label(), store.meta.geometry, store.meta.label_convention)
    write_metrics(out / "metrics.tsv", [])
    EvaluationRecord(identity=Identity()).write(out)
    save_weights(out / "model.safetensors", {"a": torch.zeros(1)}, {})


SECRETS = {
    "WANDB_API_KEY": "secret-wandb",
    "MLFLOW_TRACKING_TOKEN": "secret-mlflow",
    "MLFLOW_TRACKING_PASSWORD": "secret-password",
    "AWS_SECRET_ACCESS_KEY": "secret-aws",
    "SLURM_JWT": "secret-jwt",
}

LAUNCH = """
import sys
from pathlib import Path
from cluster.launch import run
from cluster.settings import JobSettings
run([sys.executable, "-c", "print('done')"], Path("job"), JobSettings(tasks_per_node=2), "test")
run([sys.executable, "-c", "raise SystemExit('failed')"], Path("failed"), JobSettings(), "test")
"""


def told(folder: Path) -> list[str]:
    """Return the files with a secret in their bytes, also where they are gzipped."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        found += [str(path)] if b"secret-" in content else []
    return found


def test_a_job_s_files_tell_no_secret(tmp_path: Path, batch_script: Callable[..., str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH],
        cwd=tmp_path, env={**os.environ, **SECRETS}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "failed" in done.stderr
    assert "secret-" not in done.stdout + done.stderr
    assert len(list(tmp_path.rglob("*"))) > 8
    assert told(tmp_path) == []
    text = batch_script(JobSettings(cluster="slurm", nodes=2, gpus_per_node=1), "name", tmp_path)
    assert "secret-" not in text


def test_doctor_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccsd import doctor

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    facts = doctor.examine(tmp_path)
    found = doctor.diagnose(facts)
    assert "secret-" not in doctor.report(facts, found) + json.dumps(doctor.as_dict(facts, found))


@pytest.mark.slow
def test_a_training_tells_no_secret(tmp_path: Path) -> None:
    """Through a local job, with TensorBoard: weights, record, checkpoints, curves, logs."""
    text = (
        "name: x\nphantom: {cases: 6, size: 32}\nmodel: {width: 2, levels: 2}\n"
        "train: {steps: 2, patch: [16, 16, 16], precision: fp32, validate_every: 2}\nruntime: {workers: 0}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    commands = (
        ["phantom", "src", "--cases", "6", "--size", "32"],
        ["convert", "src", "data"],
        ["split", "data"],
        ["train", "--config", "config.yaml", "--data", "data", "--run", "run", "--job", "cluster=local"],
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "ccsd", *command],
            cwd=tmp_path, env={**os.environ, **SECRETS}, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "secret-" not in done.stdout + done.stderr
    assert (tmp_path / "run" / "run.json").is_file()
    assert told(tmp_path) == []
    own = {name: mode for name, mode in modes(tmp_path / "run").items() if not name.startswith("job")}
    readable = 0o666 & ~_umask()
    assert {name for name, mode in own.items() if mode & 0o666 != readable} == set()


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
