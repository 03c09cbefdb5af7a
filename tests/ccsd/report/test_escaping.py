"""Whatever text the files of a study hold, the page shows it as text."""

import json
from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml

from ccsd.report import write_report

EVIL = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>$\\frac{{7*7}}"


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


def poisoned(value):
    """Return nested JSON with every text replaced, and every key that is no word of ours."""
    if isinstance(value, dict):
        numbers = value and all(isinstance(item, int) for item in value.values())
        return {key: poisoned(item) for key, item in value.items()} | ({} if numbers else {EVIL: EVIL})
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return EVIL if isinstance(value, str) else value


@pytest.mark.slow
def test_no_text_of_a_study_becomes_markup(study):
    evaluation = study / "evaluation" / "ccsd-s0" / "all"
    table = pd.read_csv(evaluation / "metrics.tsv", sep="\t", dtype=str, keep_default_na=False)
    first = table["case"].iloc[0]
    table["case"] = [EVIL if case == first else case for case in table["case"]]
    for column in ("experiment", "policy", "model_hash", "split_hash"):
        table[column] = EVIL
    table.to_csv(evaluation / "metrics.tsv", sep="\t", index=False)
    content = json.loads((evaluation / "evaluation.json").read_text())
    task = content.pop("task")
    task["words"] = {"WT": EVIL}
    (evaluation / "evaluation.json").write_text(json.dumps({**poisoned(content), "task": task}))
    run = study / "runs" / "ccsd-s0"
    (run / "run.json").write_text(json.dumps(poisoned(json.loads((run / "run.json").read_text()))))
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "validation":
            event["dice"] = {EVIL: event["dice"]["flair"]}
        if event["event"] == "removal":
            event["paths"] = {EVIL: 1.0}
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    run.rename(run.with_name("'><b onclick=x>"))
    (study / "config.yaml").write_text(yaml.safe_dump({"name": EVIL, EVIL: EVIL, "phantom": {}}))

    rejected = study / "data" / "rejected" / "x.json"
    rejected.parent.mkdir(exist_ok=True)
    rejected.write_text(json.dumps({"case": EVIL, "reason": "t1 is empty"}))

    page = Page(write_report(study).page.read_text())

    assert page.tags.count("script") == 1
    assert "onerror" not in page.attributes
    assert "onclick" not in page.attributes
    assert page.tags.count("html") == 1
    assert f"the conversion rejected them: {EVIL}: t1 is empty." in page.text
