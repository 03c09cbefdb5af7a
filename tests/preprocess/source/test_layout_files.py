"""Layouts as files: the user's own, broken ones, and what the documentation says about the shipped ones."""

from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.errors import InputError
from preprocess.source.layouts import IGNORED, UNKNOWN, discover, survey
from preprocess.source.layouts.layout import Layout, read_layout, shipped_layouts
from support import ROOT
from support.sources import roles, touch
from support.tasks import GLIOMA

OWN = """
numbering: brats2023
case: "(?P<patient>P[0-9]+)/scan[0-9]"
files:
  flair: "{case}/dark-fluid"
  t1ce: ["{case}/t1-gado", "{case}/t1-km"]
  segmentation: "{case}/tumour"
ignored: ["{case}/scout"]
"""


def test_a_layout_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(OWN)
    src = touch(
        tmp_path / "src", *(f"P7/scan1/{n}.nii" for n in ("dark-fluid", "T1-KM", "tumour", "scout", "x", "x_t1"))
    )
    found = survey([src], GLIOMA, str(tmp_path / "mine.yaml"))
    (case,) = found.cases
    assert (case.case, case.layout, case.numbering, case.patient) == ("P7_scan1", "mine", "brats2023", "P7")
    assert list(case.images) == ["flair", "t1ce"]
    assert list(roles(found, src).values()) == ["t1ce", "flair", IGNORED, "segmentation", UNKNOWN, UNKNOWN]


BROKEN = {
    "key": ("folder: x", r"folder: unknown key; allowed: name, tasks, numbering, case, files"),
    "twice": ('case: "x"', "case: given twice"),
    "not YAML": ("a: [", "not valid YAML"),
}
WRONG = {
    "role": (("flair:", "Dark-Fluid:"), "files.Dark-Fluid.*: String should match pattern"),
    "task": (
        ("numbering:", "tasks: [glioma]\nnumbering:"),
        "tasks: unknown glioma; allowed: brats-gli-post, brats-gli-",
    ),
    "numbers of no task of it": (
        ("numbering: brats2023", "tasks: [brats-ped, brats-men]\nnumbering: msd"),
        "numbering: unknown msd; allowed: brats-ped2024, brats2023, or none",
    ),
    "pattern": (("dark-fluid", "(dark"), r"files.flair: '{case}/\(dark' with the case .*missing \)"),
    "no case": (("{case}/tumour", "tumour"), "files.segmentation: 'tumour' does not contain {case}"),
    "group": (("{case}/tumour", "{case}/{time}"), "unknown group name 'time'"),
    "numbers": (
        ("brats2023", "brats2099"),
        "numbering: unknown brats2099; allowed in the task brats-gli-pre: brats2023, brats2020",
    ),
    "volumes": (("flair:", "volumes:"), "files: has both volumes and single images"),
    "order": (("numbering:", "channels: [t1]\nnumbering:"), "channels: the order of the modalities"),
    "case": (('"(?P<patient>P[0-9]+)/scan[0-9]"', '"("'), r"mine.yaml: .*case: '\(': missing \)"),
    "folder above": (("numbering:", 'below: "("\nnumbering:'), r"below: '\(': missing \)"),
    "repetition": (("dark", "(d{99999999999})"), "files.flair: .*repetition"),
    "channel": (("flair:", "channel:"), "files.channel: mark the number"),
}


@pytest.mark.parametrize("kind", [*BROKEN, *WRONG])
def test_a_broken_layout_is_rejected_with_file_key_and_what_is_allowed(kind: str, tmp_path: Path) -> None:
    text, message = (
        (OWN + BROKEN[kind][0], BROKEN[kind][1]) if kind in BROKEN else (OWN.replace(*WRONG[kind][0]), WRONG[kind][1])
    )
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_layout(str(tmp_path / "mine.yaml"), GLIOMA)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))


def test_the_documentation_lists_every_layout_and_its_example_works(tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/data.md").read_text()
    table = page[page.index("| layout |") : page.index("### Keys of a layout")]
    for layout in shipped_layouts():
        (row,) = [line for line in table.splitlines() if f"`{layout.name}`" in line.split(" | ")[0]]
        tasks = ", ".join(f"`{task}`" for task in layout.tasks) or "any"
        assert row.endswith(
            f"| {tasks} | `{layout.numbering}` |" if layout.numbering else f"| {tasks} | you name them |"
        )
    guide = (ROOT / "docs/how-to/data.md").read_text()
    start = guide.index("    numbering: brats2023  ")
    example = guide[start : guide.index("    ```", start)]
    (tmp_path / "mine.yaml").write_text(dedent(example))
    touch(tmp_path, *(f"P7/scan1/{name}.nii" for name in ("dark-fluid", "t1-km", "tumour", "scout2")))
    assert UNKNOWN not in {file.role for file in survey([tmp_path], GLIOMA, str(tmp_path / "mine.yaml")).files}


TEXT = st.one_of(st.text(max_size=12), st.text("()[]{}?*+|\\\\^$/-P<>:=!123", max_size=12))
VALUES = st.one_of(st.none(), st.integers(), st.floats(), TEXT, st.lists(TEXT, max_size=3))
ROLES = st.dictionaries(st.sampled_from(["flair", "volumes", "channel", "x"]), VALUES)


@pytest.mark.filterwarnings("ignore:Possible (nested set|set )")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*Layout.model_fields, "x"]), value=st.one_of(VALUES, ROLES))
def test_any_value_in_a_layout_is_taken_or_one_message(key: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**yaml.safe_load(OWN), key: value}, allow_unicode=True))
    with suppress(InputError):
        assert read_layout(str(tmp_path / "mine.yaml"), GLIOMA).files


def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"layout brats99: unknown; give the path of a .yaml file, or one of bids, brats"
    ):
        read_layout("brats99", GLIOMA)
    with pytest.raises(InputError, match=r"gone.yaml: cannot read the layout"):
        read_layout(str(tmp_path / "gone.yaml"), GLIOMA)


def test_layouts_that_differ_about_a_file_are_rejected_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(OWN)
    (tmp_path / "other.yaml").write_text(OWN.replace("brats2023", "msd"))
    both = tuple(read_layout(str(tmp_path / name), GLIOMA) for name in ("mine.yaml", "other.yaml"))
    monkeypatch.setattr("preprocess.source.layouts.shipped_layouts", lambda: both)
    with pytest.raises(
        InputError, match=r"dark-fluid.nii: matches the layouts mine and other, which disagree; choose one"
    ):
        discover(touch(tmp_path, "P7/scan1/dark-fluid.nii"), task=GLIOMA)
