"""The page of a study: complete, self-contained; and the tables beside it."""

import json
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from ccsd.errors import UsageError
from ccsd.evaluation import read_metrics
from ccsd.report import write_report
from support import ROOT

pytestmark = pytest.mark.usefixtures("undrawn")  # but for those of the fixture `page`
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Checker(HTMLParser):
    """Collects what would leave the page and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.urls, self.ids, self.images, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.urls += [
            values[name]
            for name in ("src", "href", "xlink:href", "action", "data")
            if name in values and not values[name].startswith("#")
        ]
        self.ids += [values["id"]] if "id" in values else []
        self.images += [values] if tag == "img" or values.get("role") == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(evaluated_study, tmp_path_factory):
    """Return the page of an unchanged study, read."""
    root = shutil.copytree(evaluated_study, tmp_path_factory.mktemp("page") / "tiny")
    return check(write_report(root).page), root


def check(path):
    checker = Checker()
    checker.feed(path.read_text())
    assert not checker.open
    return checker


def test_page_is_whole_and_asks_nothing_of_the_network(page):
    page, root = page

    assert all(url.startswith("data:") for url in page.urls)
    assert len(page.ids) == len(set(page.ids))
    assert "url(http" not in (root / "report.html").read_text()


def test_page_says_what_a_reader_wants_to_know(page):
    text = " ".join("".join(page[0].text).split())

    assert "2 held-out cases were segmented from every one of the 15 combinations" in text
    assert "With all four sequences the mean Dice is" in text
    assert "computer-generated phantoms" in text
    assert "Left out" not in text
    assert "2 test cases are few" in text
    assert "Where prediction and reference are both empty, Dice and NSD are 1" in text
    assert "T1ce then FLAIR then T2 (75 %)" in text
    assert "30 steps in 2 minutes" in text
    assert "No result of the paper is claimed as reproduced" in text
    assert all(f"{heading} {region}" in text for heading in ("Dice", "HD95") for region in ("WT", "TC", "ET"))


def test_every_picture_has_words(page):
    images = page[0].images
    pictures = [image for image in images if "src" in image]
    charts = [image for image in images if "src" not in image]

    assert len(charts) == 4  # by size, removals, distributions, training
    assert len(pictures) >= 2 * 7
    assert all(image.get("alt") for image in pictures)
    assert all(image.get("aria-label") for image in charts)


def test_tables_are_written_for_people_and_programs(page):
    _, root = page
    people, programs = read_metrics(root / "metrics.tsv"), read_metrics(root / "metrics.parquet")
    summary = pd.read_csv(root / "summary.tsv", sep="\t")

    pd.testing.assert_frame_equal(people, programs, check_exact=False)
    row = summary.query("scope == 'subset' and name == 'flair' and region == 'WT' and metric == 'dice'").iloc[0]
    own = people.query("subset == 'flair' and region == 'WT'")["dice"]
    assert row["mean"] == pytest.approx(own.mean(), rel=1e-5)
    assert row["policy"] == people["policy"].iloc[0]
    assert row["model_hash"] == people["model_hash"].iloc[0]


def test_page_does_without_everything_but_scores(study):
    for name in ("data", "runs", "phantoms", "config.yaml"):
        shutil.rmtree(study / name) if (study / name).is_dir() else (study / name).unlink()
    report = write_report(study)
    text = "".join(check(report.page).text)

    assert report.text.splitlines()[-1].startswith("Where prediction and reference are both empty, Dice")
    assert "No training run was found" in text
    assert "Nothing to show for ccsd: pictures require kept predictions in" in text
    assert "phantoms" not in text


def test_two_experiments_are_compared(study, add_experiment):
    add_experiment(study, "dropout", 0.9)
    written = write_report(study)
    page = check(written.page)
    text = " ".join("".join(page.text).split())
    table = pd.read_csv(study / "comparisons.tsv", sep="\t")

    assert "Experiments compared" in text
    assert "ccsd segments the whole tumour best" in text
    assert "only one seed" in text
    assert dict(table[table["metric"] == "dice"]["scope"].value_counts()) == {"subset": 45, "size": 12, "overall": 3}
    assert {"policy", "model_hash", "baseline_model_hash", "split_hash"} <= set(table.columns)
    assert '<details class="experiment" open><summary>ccsd</summary>' in written.page.read_text()
    assert '<details class="experiment"><summary>dropout</summary>' in written.page.read_text()
    assert any("dropout: mean Dice WT" in image.get("aria-label", "") for image in page.images)


@pytest.mark.slow
def test_experiments_come_in_the_order_of_the_configuration(study, add_experiment):
    add_experiment(study, "dropout", 0.9)
    config = (study / "config.yaml").read_text()
    (study / "config.yaml").write_text(config + "experiments: {dropout: {}, ccsd: {}}\n")
    table = read_metrics(write_report(study).page.with_name("metrics.tsv"))

    assert list(table["experiment"].unique()) == ["dropout", "ccsd"]


def test_a_single_experiment_is_not_compared(page):
    text = "".join(page[0].text)

    assert "Experiments compared" not in text
    assert "Averaged over all combinations it is" in text


def test_groups_of_a_fan_out_are_gathered(page, study):
    expected = (page[1] / "metrics.tsv").read_text()
    source = study / "evaluation" / "ccsd-s0" / "all"
    for name, part in pd.read_csv(source / "metrics.tsv", sep="\t", dtype=str).groupby("subset", sort=False):
        folder = study / "evaluation" / "ccsd-s0" / name
        folder.mkdir()
        part.to_csv(folder / "metrics.tsv", sep="\t", index=False)
        (folder / "evaluation.json").write_text((source / "evaluation.json").read_text())
    (source / "metrics.tsv").unlink()
    write_report(study)

    assert sorted((study / "metrics.tsv").read_text().splitlines()) == sorted(expected.splitlines())


def test_scores_that_contradict_one_another_are_rejected(study):
    source = study / "evaluation" / "ccsd-s0" / "all"
    other = study / "evaluation" / "ccsd-s0" / "again"
    other.mkdir()
    (other / "evaluation.json").write_text((source / "evaluation.json").read_text())
    table = pd.read_csv(source / "metrics.tsv", sep="\t")
    table.assign(dice=0.123).to_csv(other / "metrics.tsv", sep="\t", index=False)
    with pytest.raises(UsageError, match=r"computed twice with different results.*, in ccsd-s0/again and ccsd-s0/all;"):
        write_report(study)
    assert not (study / "report.html").exists()


def test_an_experiment_and_label_maps_from_elsewhere_do_not_share_a_name(study):
    """As when an experiment gets the name of what was adopted before: the mean of both would be of neither."""
    source = study / "evaluation" / "ccsd-s0" / "all"
    other = study / "evaluation" / "ccsd" / "adopted"
    other.mkdir(parents=True)
    (other / "evaluation.json").write_text((source / "evaluation.json").read_text())
    table = pd.read_csv(source / "metrics.tsv", sep="\t").assign(seed=None, model_hash=None, dice=0.123)
    table.to_csv(other / "metrics.tsv", sep="\t", index=False)
    with pytest.raises(
        UsageError, match="ccsd is the name of both an experiment and label maps from elsewhere; remove"
    ):
        write_report(study)


def test_folds_are_not_pooled_with_a_training_without_folds(study):
    """As when a study gets folds, and what was scored before on the fixed test set still lies there."""
    source = study / "evaluation" / "ccsd-s0" / "all"
    other = study / "evaluation" / "ccsd-f0-s0" / "all"
    other.mkdir(parents=True)
    (other / "evaluation.json").write_text((source / "evaluation.json").read_text())
    table = pd.read_csv(source / "metrics.tsv", sep="\t").assign(fold=0)
    table.assign(case="z" + table["case"]).to_csv(other / "metrics.tsv", sep="\t", index=False)
    with pytest.raises(UsageError, match=r"ccsd has scores of folds and of a training without folds; .* ccsd-s0/all"):
        write_report(study)


def test_folder_without_scores_is_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"no scores found.*ccsd evaluate"):
        write_report(tmp_path)


def test_scores_that_lie_elsewhere_are_named(study):
    shutil.move(study / "evaluation" / "ccsd-s0" / "all", study / "evaluation" / "mine")
    with pytest.raises(UsageError, match=r"no scores found.*mine has scores, but is not in that place"):
        write_report(study)


def test_pictures_of_an_earlier_evaluation_are_not_shown(study):
    path = study / "evaluation" / "ccsd-s0" / "all" / "evaluation.json"
    record = json.loads(path.read_text())
    record["identity"]["settings"]["keep_predictions"] = False
    path.write_text(json.dumps(record))
    assert any(path.parent.glob("predictions/*/*"))
    assert "Best case" not in write_report(study).page.read_text()


def test_pictures_need_no_certain_name_of_the_evaluation(study):
    shutil.move(study / "evaluation" / "ccsd-s0", study / "evaluation" / "mine")
    images = check(write_report(study).page).images

    assert any("prediction from FLAIR" in image.get("alt", "") for image in images)


@pytest.mark.slow
def test_phantoms_are_told_by_the_mark_of_their_folder(study):
    (study / "config.yaml").write_text(f"name: tiny\nsource: {study / 'phantoms'}\n")
    for record in study.glob("runs/*/run.json"):
        record.unlink()
    assert "computer-generated phantoms" in "".join(check(write_report(study).page).text)
    (study / "phantoms" / "PHANTOMS.txt").unlink()
    assert "computer-generated phantoms" not in "".join(check(write_report(study).page).text)


def test_one_case_and_one_combination_are_spoken_of_as_one(study):
    (table,) = study.glob("evaluation/*/*/metrics.tsv")
    scores = pd.read_csv(table, sep="\t", dtype=str)
    scores[(scores["case"] == scores["case"][0]) & (scores["subset"] == "flair")].to_csv(table, sep="\t", index=False)
    written = write_report(study)
    text = "".join(check(written.page).text)

    assert "1 held-out case was segmented from 1 combination of sequences" in text
    assert "A single test case does not represent others" in text
    assert written.text.startswith("Mean Dice over 1 case (")


def test_damaged_table_is_named(study):
    path = study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv"
    path.write_text("case\tdice\na\t1\n")
    with pytest.raises(UsageError, match=r"metrics.tsv: not a table of scores, columns missing"):
        write_report(study)


@pytest.mark.slow
def test_published_averages_are_shown_for_their_own_test_cases_only(page, study):
    from ccsd.report.published import PROTOCOLS
    from preprocess.splits import Split, read_list

    expected = Split.of(read_list(ROOT / "config" / "splits" / "brats2020.tsv")).hash
    assert "Comparison with published averages" not in "".join(page[0].text)
    table = study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv"
    text = table.read_text()
    table.write_text(text.replace(text.split()[-1], expected))

    assert set(PROTOCOLS) == {expected}
    assert "RFNet" in "".join(check(write_report(study).page).text)

    table.write_text("\n".join(line for line in table.read_text().splitlines() if "\tt2\t" not in line) + "\n")
    assert "RFNet" not in "".join(check(write_report(study).page).text)
