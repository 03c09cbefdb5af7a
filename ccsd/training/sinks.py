"""Show a training's curves and pictures in TensorBoard, MLflow or Weights & Biases, in addition to metrics.jsonl.

Each is imported only on request. None of them can stop a training: if one fails, this is reported once and it is
disabled.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from ccsd.errors import UsageError
from preprocess.files import write_text
from preprocess.pictures import Picture


class Sink(Protocol):
    """One place to show curves and pictures."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        ...

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture."""
        ...

    def close(self) -> None:
        """Flush what is pending."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard; points after the step that is resumed from are dropped."""

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=start)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush what is pending."""
        self._writer.close()


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI; a resumed training continues the same one."""

    def __init__(self, run: Path, start: int) -> None:
        import mlflow

        self._mlflow = mlflow
        note = run / "mlflow-run"
        known = note.read_text(encoding="utf-8").strip() if start and note.exists() else None
        active = mlflow.start_run(run_id=known, run_name=None if known else run.name)
        write_text(note, active.info.run_id + "\n")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve; MLflow's names are more restricted than ours."""
        self._mlflow.log_metrics({re.sub(r"[^\w.:/ -]", "-", name): value for name, value in values.items()}, step=step)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture."""
        self._mlflow.log_image(picture, key=name.replace("/", "-"), step=step)

    def close(self) -> None:
        """Flush what is pending."""
        self._mlflow.end_run()


class WandB:
    """A run of Weights & Biases in the project `ccsd`; a resumed training continues the same one."""

    def __init__(self, run: Path, start: int) -> None:
        import wandb

        self._wandb = wandb
        note = run / "wandb-run"
        known = note.read_text(encoding="utf-8").strip() if start and note.exists() else uuid4().hex[:16]
        self._run = wandb.init(project="ccsd", name=run.name, id=known, resume="allow", dir=str(run))
        write_text(note, known + "\n")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Flush what is pending."""
        self._run.finish()


SINKS: dict[str, Callable[[Path, int], Sink]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def check_installed(names: Sequence[str]) -> None:
    """Reject sinks whose package is missing, before anything is computed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"runtime.sinks: {', '.join(missing)} is not installed; "
            f"install it with `pip install {' '.join(missing)}`, or leave it out of runtime.sinks"
        )


class Sinks:
    """All sinks of a training; if one fails, this is reported once and it is disabled."""

    def __init__(self, names: Sequence[str], run: Path, start: int) -> None:
        self._sinks: dict[str, Sink] = {}
        for name in names:
            self._guard(name, partial(self._add, name, run, start))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each named curve."""
        self._each(lambda sink: sink.scalars(values, step))

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Show a picture."""
        self._each(lambda sink: sink.picture(name, picture, step))

    def close(self) -> None:
        """Flush what is pending."""
        self._each(lambda sink: sink.close())

    def _each(self, work: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            self._guard(name, partial(work, sink))

    def _add(self, name: str, run: Path, start: int) -> None:
        self._sinks[name] = SINKS[name](run, start)

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever a service's client raises, the training continues
            self._sinks.pop(name, None)
            print(f"{name} failed ({error}); logging to it is disabled; metrics.jsonl is complete", flush=True)
