"""metrics.jsonl: what was recorded after the checkpoint that is resumed from is forgotten."""

from pathlib import Path

from ccsd.training.record import Record, read_events


def test_events_survive_and_later_ones_are_forgotten(tmp_path: Path) -> None:
    record = Record(tmp_path, 0, 20)
    for step in (5, 10, 15):
        record.add("train", step, loss=1 / step, nested={"a": {"b": 2.0}})
    record.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    again = Record(tmp_path, 10, 20)
    again.add("train", 12, loss=0.5)
    again.close()
    assert [event["step"] for event in read_events(tmp_path)] == [5, 10, 12]


def test_a_log_gets_lines(tmp_path: Path, capsys: object) -> None:
    record = Record(tmp_path, 0, 20)
    record.progress(1, 0.5, 60.0)
    record.progress(2, 0.4, 60.0)
    record.close()
    lines = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert lines == ["step 1/20  loss 0.500  60.00 s/step  0:19:00 left"]
