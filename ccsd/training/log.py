"""What a training says of itself: metrics.jsonl is the truth, sinks and the terminal show it."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ccsd.training.picture import Picture, write_picture
from ccsd.training.sinks import Sinks
from preprocess.files import write_text

PICTURES = "overlays"
FILE = "metrics.jsonl"
HEARTBEAT_S = 15.0


class Record:
    """Appends events to metrics.jsonl and shows them. Used by the first process only."""

    def __init__(self, run: Path, start: int, total: int, sinks: Sequence[str] = ()) -> None:
        run.mkdir(parents=True, exist_ok=True)
        _forget_after(run / FILE, start)
        self._file = (run / FILE).open("a", encoding="utf-8", buffering=1)
        self._sinks = Sinks(sinks, run, start)
        self._pictures = run / PICTURES
        self._bar = tqdm(initial=start, total=total, desc="train", unit="step") if sys.stderr.isatty() else None
        self._total = total
        self._last_line = 0.0

    def add(self, event: str, step: int, **values: Any) -> None:
        """Append one event; nested mappings of numbers become one curve each."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self._sinks.scalars(dict(_flatten(event, values)), step)

    def picture(self, step: int, picture: Picture) -> None:
        """Keep a picture as RUN/overlays/step-*.png and show it."""
        write_picture(self._pictures / f"step-{step:08d}.png", picture)
        self._sinks.picture("validation/overlay", picture, step)

    def progress(self, step: int, loss: float, step_s: float) -> None:
        """Move the bar on a terminal; in a log, print a line now and then."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix(loss=f"{loss:.3f}")
            return
        now = time.monotonic()
        if now - self._last_line > HEARTBEAT_S or step == self._total:
            self._last_line = now
            left = (self._total - step) * step_s
            print(
                f"step {step}/{self._total}  loss {loss:.3f}  {step_s:.2f} s/step  {_duration(left)} left", flush=True
            )

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        self._sinks.close()
        if self._bar is not None:
            self._bar.close()


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run in order; a last line cut short by a crash is left out."""
    path = run / FILE
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def _forget_after(path: Path, step: int) -> None:
    """Drop what an interrupted run recorded after the checkpoint that is resumed from."""
    if path.exists():
        kept = [event for event in read_events(path.parent) if event["step"] <= step]
        write_text(path, "".join(json.dumps(event) + "\n" for event in kept))


def _flatten(prefix: str, values: dict[str, Any]) -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flatten(f"{prefix}/{key}", value)
        elif isinstance(value, int | float):
            flat.append((f"{prefix}/{key}", float(value)))
    return flat


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
