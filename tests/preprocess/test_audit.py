"""The audit says what is wrong before anything is converted, in a table and on a page."""

import shutil
from pathlib import Path

import pytest

from preprocess import audit as module
from preprocess.audit import CaseAudit, verdicts, write_audit
from preprocess.convert import convert
from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.accounts import find_cases
from support.tasks import GLIOMA

FIRST, SECOND, THIRD = (f"BraTS20_Training_{n:03d}" for n in (1, 2, 3))


@pytest.fixture
def odd(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort with a truncated file, a copied modality, and a file of another case."""
    src = tmp_path / "odd"
    shutil.copytree(cohort, src)
    path = src / FIRST / f"{FIRST}_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-50])
    shutil.copy(src / SECOND / f"{SECOND}_t1.nii.gz", src / SECOND / f"{SECOND}_t1ce.nii.gz")
    shutil.copy(src / SECOND / f"{SECOND}_t2.nii.gz", src / THIRD / f"{THIRD}_t2.nii.gz")
    return src


def audit(src: Path, **options: int) -> list[CaseAudit]:
    return module.audit(find_cases(src, task=GLIOMA).cases, **options)


def by_case(audits: list[CaseAudit]) -> dict[str, CaseAudit]:
    return {item.case: item for item in audits}


def test_findings_by_case(odd: Path) -> None:
    found = by_case(audit(odd, workers=2))
    assert len(found) == 6
    assert [f.check for f in found[FIRST].findings] == ["unreadable"]
    assert {"placeholder", "shared-file"} <= {f.check for f in found[SECOND].findings}
    assert f"shows the same image as a file of {SECOND}" in str(
        [f.message for f in found[THIRD].findings if f.check == "shared-file"]
    )
    assert (found[FIRST].verdict, found[SECOND].verdict, found[THIRD].verdict) == ("rejected", "rejected", "unusual")
    assert verdicts(found.values())["rejected"] == 2


def test_conversion_rejects_what_the_audit_rejects(odd: Path, tmp_path: Path) -> None:
    rejected = {item.case for item in audit(odd) if item.verdict == "rejected"}
    assert {item.case for item in convert(odd, tmp_path / "dest", task=GLIOMA) if item.status == "rejected"} == rejected


def test_table_and_page(odd: Path, tmp_path: Path) -> None:
    audits = audit(odd)
    write_audit(audits, find_cases(odd, task=GLIOMA).files, tmp_path / "out", GLIOMA)
    header, *rows = [line.split("\t") for line in (tmp_path / "out/audit.tsv").read_text().splitlines()]
    assert header[0] == "case"
    assert {len(row) for row in rows} == {len(header)}
    assert {row[0] for row in rows} == {item.case for item in audits}
    page = (tmp_path / "out/audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5, "a thumbnail of every case that can be read"
    assert "http" not in page.replace("http-equiv", ""), "nothing is fetched"
    assert page.index(FIRST) < page.index("BraTS-GLI-00000-000"), "the rejected come first"


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "'\"><img src=x>"
    case = CaseAudit(name, "generic", ("t1",), has_label=False, findings=(), digests={}, thumbnail=b"\xff\xd8")
    write_audit([case], [], tmp_path, GLIOMA)
    page = (tmp_path / "audit.html").read_text()
    assert "&lt;img src=x&gt;" in page
    assert page.count("<img") == 1, "the thumbnail"


def test_a_case_without_label_or_with_one_modality_has_a_thumbnail(cohort: Path, tmp_path: Path) -> None:
    shutil.copy(cohort / FIRST / f"{FIRST}_t1ce.nii.gz", tmp_path)
    (item,) = audit(tmp_path)
    assert item.thumbnail[:2] == b"\xff\xd8"
    assert item.verdict == "fine"


def test_images_of_different_shape_have_none(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort / FIRST, tmp_path / FIRST)
    path = tmp_path / FIRST / f"{FIRST}_t2.nii.gz"
    volume = nifti.read(path)
    nifti.write(path, volume.array[1:], volume.affine)
    (item,) = audit(tmp_path)
    assert item.verdict == "rejected"
    assert item.thumbnail == b""


def test_no_case(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case found"):
        audit(tmp_path)
