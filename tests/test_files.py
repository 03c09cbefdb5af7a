"""Files of every package are as readable as the user's others: a group reads them, a hospital's stay its own."""

import os
import stat
from pathlib import Path

import pytest
import torch

from ccsd.evaluation.tables import write_metrics
from ccsd.inference.labelmaps import write_labelmap
from ccsd.model.weights import save_weights
from ccsd.records import EvaluationRecord, Identity
from preprocess.audit import audit, write_audit
from preprocess.convert import convert
from preprocess.dataset import write_tables
from preprocess.files import write_text
from preprocess.restore import write_restored
from preprocess.source.accounts import find_cases
from preprocess.splits import Split
from preprocess.store.reader import CaseStore
from support.tasks import GLIOMA

CASE = "BraTS20_Training_001"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002], ids=oct)
def test_what_is_written_follows_the_umask(umask: int, cohort: Path, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_one_of_each(cohort / CASE, tmp_path / "out")
    finally:
        os.umask(before)
    written = list((tmp_path / "out").rglob("*"))
    assert len(written) > 15
    for path in written:
        full = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == full & ~umask, path


def write_one_of_each(case: Path, out: Path) -> None:
    convert(case, out / "data", task=GLIOMA)
    write_tables(out / "data")
    write_text(out / "data" / "split.tsv", Split((CASE,), (), ()).as_tsv())
    found = find_cases(case, task=GLIOMA)
    write_audit(audit(found.cases), found.files, out / "audit", GLIOMA)
    write_restored(out / "data", CASE, out / "restored")
    store = CaseStore(out / "data", CASE)
    write_labelmap(out / "p" / "a.nii.gz", store.read_label(), store.meta.geometry, store.meta.label_convention)
    write_metrics(out / "metrics.tsv", [])
    EvaluationRecord(identity=Identity(), task=GLIOMA).write(out)
    save_weights(out / "model.safetensors", {"a": torch.zeros(1)}, {})
