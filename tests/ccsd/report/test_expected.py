"""How well the expected Dice of calibrated models holds, as the report shows it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ccsd.evaluation.tables import read_metrics
from ccsd.records import Calibration, Curve
from ccsd.report.expected import expected_scores, held, with_expected
from ccsd.report.page import write_report
from ccsd.report.results import read_results

SURE = tuple(np.linspace(0, 1, 11))


def calibration(model_hash: str, **changes: object) -> Calibration:
    """Return one by which Dice is the confidence, 0.1 more or less."""
    low, high = (tuple(np.clip(np.array(SURE) + off, 0, 1)) for off in (-0.1, 0.1))
    curves = [
        Curve(
            region=region, sequences=size, patients=30, seen=(0, 1), confidence=SURE, expected=SURE, low=low, high=high
        )
        for region in ("WT", "TC", "ET")
        for size in (1, 2, 3, 4)
    ]
    settings = {"overlap": 0.5, "flips": False, "painted": "brain"}
    about = {"format": 1, "model_hash": model_hash, "task": "brats-gli-pre@0", "level": 0.9}
    about |= {"cases": 30, "patients": 30}
    return Calibration(**{**about, "settings": settings, "curves": tuple(curves), **changes})


def test_what_held_is_counted() -> None:
    rng = np.random.default_rng(0)
    sure = np.tile(np.linspace(0.3, 0.9, 50), 2)
    dice = sure + rng.choice([0.05, -0.05], 100)
    dice[:5], dice[50:55] = 0.05, 0.9  # ten that failed: five as was feared, five better than feared
    table = pd.DataFrame(
        {
            "case": np.tile(np.arange(50), 2), "subset": np.repeat(["t1", "t2"], 50), "modalities": 1, "region": "WT",
            "model_hash": "a", "confidence": sure, "dice": dice,
        }
    )  # fmt: skip
    (found,) = held(with_expected(table, {"a": calibration("a")}))
    assert (found.cases, found.sequences) == (50, 1)
    assert found.covered == pytest.approx(0.9)
    assert found.width == pytest.approx(0.2, abs=0.01)
    assert found.in_tenth == pytest.approx(0.6, abs=0.21)
    shuffled = table.assign(dice=rng.permutation(dice))
    (chance,) = held(with_expected(shuffled, {"a": calibration("a")}))
    assert abs(chance.rank) < 0.3 < found.rank


def test_what_cannot_be_said_is_left_out() -> None:
    """Few segmentations, equal ones, and equal expectations, of which the model is less sure of the failures."""
    about = {"modalities": 1, "region": "WT", "model_hash": "a"}
    flat = calibration("a").model_copy(
        update={
            "curves": (
                Curve(region="WT", sequences=1, patients=2, seen=(0, 1), confidence=(0, 1), expected=(0.5, 0.5)),
            )
        }
    )
    sure, dice = np.linspace(0.9, 0.1, 20), np.linspace(0.8, 0.2, 20)
    table = pd.DataFrame({**about, "case": range(20), "subset": "t1", "confidence": sure, "dice": dice})
    (found,) = held(with_expected(table, {"a": flat}))
    assert found.in_tenth == found.in_fifth == 1
    assert np.isnan([found.covered, found.width, found.rank, found.within]).all()
    (few,) = held(with_expected(table[:9], {"a": flat}))
    assert np.isnan(few.in_tenth)
    equal = pd.concat([table, table.assign(subset="t2", dice=0.5)], ignore_index=True)
    (found,) = held(with_expected(equal, {"a": calibration("a")}))
    assert found.within == pytest.approx(1)


@pytest.mark.slow
def test_the_page_shows_it_for_the_weights_and_settings_that_were_calibrated(study: Path) -> None:
    run = study / "runs" / "ccsd-s0"
    weights = json.loads((run / "run.json").read_text())["model_hash"]
    for changes in ({"model_hash": "1" * 64}, {"settings": {"overlap": 0.25, "flips": False, "painted": "brain"}}):
        calibration(weights).model_copy(update=changes).write(run)
        assert expected_scores(read_results(study), "ccsd").empty
    assert 'id="expected"' not in write_report(study).page.read_text()
    calibration(weights).write(run)
    scores = expected_scores(read_results(study), "ccsd")
    table = read_metrics(study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv")
    assert len(scores) == table["confidence"].notna().sum() > 0
    np.testing.assert_allclose(scores["expected"], scores["confidence"])
    page = write_report(study).page.read_text()
    section = page[page.index('<section id="expected"') :].partition("</section>")[0]
    assert section.count("<tr") == 1 + len(held(scores))
    assert "The interval should contain the Dice of 90 % of the segmentations." in section
    bare = table[table["confidence"].isna()]
    count = f"This happened {len(bare)} time{'s' * (len(bare) != 1)}, {(bare['empty'] == 'prediction').sum()} of them"
    assert (count in section) == (len(bare) > 0)
    assert re.search(r'aria-label="ccsd: Dice of every segmentation against the expected Dice', section)
