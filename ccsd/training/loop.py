"""The training: the same program on a laptop's CPU, one GPU and many nodes."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ccsd.config.schema import Config
from ccsd.config.science import science_digest
from ccsd.data import Batch, PatchReader, PatchStream, augment
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.errors import TrainingError
from ccsd.study import BEST, CHECKPOINTS, split_for
from ccsd.training import checkpoint
from ccsd.training.distributed import Process, joined
from ccsd.training.engine import learning_rate, prepared_net, resumed_engine, samples_per_process, set_learning_rate
from ccsd.training.log import StepMeans, StepTimes, TrainingLog, peak_memory_mb
from ccsd.training.result import finished, keep_if_best, run_record, write_result
from ccsd.training.sinks import check_installed
from ccsd.training.stop import StopRequest
from ccsd.training.validate import validate
from preprocess.dataset import read_fingerprint
from preprocess.splits import Split


def train(
    config: Config,
    data: Path,
    run: Path,
    experiment: str | None = None,
    stop_after: float | None = None,
    log_every: int = 10,
) -> int:
    """Train one model, or resume where an earlier call stopped.

    Parameters
    ----------
    config
        The resolved configuration.
    data
        Folder of converted cases with a split.
    run
        Folder of the run; gets metrics.jsonl and checkpoints, and at the end model.safetensors and run.json.
    experiment
        Name to record.
    stop_after
        Minutes after the start of the process by which to have saved and stopped; None has no limit.
    log_every
        Steps between two log entries.

    Returns
    -------
    int
        Exit code: 0 when finished, 75 when stopped by a signal or the time, with the state saved, 130 after Ctrl-C.

    Raises
    ------
    UsageError, InputError
        If the configuration, the data or an existing run folder cannot be used.
    TrainingError
        If the loss is no longer finite, a checkpoint cannot be saved, or another process was lost.
    """
    check_installed(config.runtime.sinks)
    split = split_for(data, "the configuration", config.task)
    science = science_digest(config, split.hash)
    if finished(run, science):
        print(f"{run}: already trained with this configuration")
        return 0
    stop = StopRequest(stop_after)
    with joined() as process, checkpoint.report_full_disk(run):
        return _Training(config, data, run, experiment, split, science, process, stop, log_every).go()


class _Training:
    """One training's state. Every method is called by every process."""

    def __init__(
        self,
        config: Config,
        data: Path,
        run: Path,
        experiment: str | None,
        split: Split,
        science: str,
        process: Process,
        stop: StopRequest,
        log_every: int,
    ) -> None:
        self.config, self.data, self.run, self.experiment = config, data, run, experiment
        self.split, self.science, self.process, self.stop = split, science, process, stop
        self.log_every = log_every
        fingerprint = read_fingerprint(data)  # at once: what is missing must not be found out after the last step
        self.origin = {"data_hash": fingerprint["data_hash"], "spacing_mm": fingerprint["spacing_mm"]["median"]}
        samples_per_process(config.train.batch_size, process.world)  # rejects what cannot be shared, before any work
        objective = Objective(
            prepared_net(config, process.device),
            config.distillation,
            config.task,
            decode_batch=config.runtime.decode_batch,
            bf16=config.train.precision == "bf16",
        )
        found = self._checkpoint()
        self.engine = resumed_engine(objective, config, run, found, process)
        self.means, self.times = StepMeans(process.device, config.task.modalities), StepTimes(config.train.batch_size)
        self.saved_at = -1 if found is None else found.step
        self.step, self.wall_s = (0, 0.0) if found is None else (found.step, found.wall_s)
        self.started = time.monotonic()

    def go(self) -> int:
        """Train to the end or to a stop, then leave the result or a checkpoint."""
        settings = self.config.train
        patch = " x ".join(str(side) for side in settings.patch)
        self.process.say(
            f"training {self.run.name} (cases: {len(self.split.train)}, steps: {settings.steps}, "
            f"batch: {settings.batch_size}, patch: {patch}, processes: {self.process.world}, "
            f"device: {self.process.device.type})"
        )
        log = None
        if self.process.is_first:
            log = TrainingLog(self.run, self.step, settings.steps, self.config.runtime.sinks)
        try:
            stopped = self._steps(log)
        finally:
            if log is not None:
                log.close()
        if stopped:
            self._save()
            self.process.say(f"stopped at step {self.step}; run the same command again to resume")
            return self.stop.exit_code
        self._finish()
        return 0

    def _checkpoint(self) -> checkpoint.CheckpointMeta | None:
        """Return the checkpoint to resume from; those of other settings are moved out of the way."""
        found = checkpoint.latest(self.run)
        if found is None or found.science == self.science:
            return found
        self.process.wait_for_all()
        if self.process.is_first:
            aside = checkpoint.set_aside(self.run, found)
            print(f"the checkpoints here belong to other settings or data; moved to {aside}; starting a new training")
        self.process.wait_for_all()
        return None

    def _steps(self, log: TrainingLog | None) -> bool:
        """Run the remaining steps; True when a stop was asked for."""
        settings = self.config.train
        batches = self._batches()
        try:
            while self.step < settings.steps:
                self._step(batches)
                self._log(log)
                if self.step % settings.validate_every == 0 or self.step == settings.steps:
                    self._validate(log)
                if self.process.any(self.stop.requested()):
                    return True
                if self.step % self.config.runtime.checkpoint_every == 0:
                    self._save()
        finally:
            batches.close()
        return False

    def _batches(self) -> PatchStream:
        settings = self.config.train
        reader = PatchReader(
            self.data,
            self.split.train,
            modalities=self.config.task.modalities,
            patch=settings.patch,
            global_batch=settings.batch_size,
            rank=self.process.rank,
            world=self.process.world,
            seed=settings.seed,
            foreground=settings.foreground,
        )
        return PatchStream(reader, workers=self.config.runtime.workers, start=self.step)

    def _step(self, batches: Iterator[Batch]) -> None:
        """Run one optimizer step."""
        settings = self.config.train
        began = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter()
        image, label = batch.image.to(self.process.device), batch.label.to(self.process.device)
        available = batch.available.to(self.process.device)
        if settings.augment:
            keys = [(settings.seed, batch.step, sample) for sample in batch.samples]
            image, label = augment(image, label, available, keys)
        draw = draw_step(
            self.config.distillation,
            self.config.task,
            batch.available,
            seed=settings.seed,
            step=batch.step,
            total_steps=settings.steps,
            samples=batch.samples,
        ).to(self.process.device)
        outputs = self.engine(image, label, available, draw)
        self._check_finite(outputs["loss"], batch)
        set_learning_rate(self.engine, learning_rate(self.step, settings))
        self.engine.backward(outputs["loss"])
        self.engine.step()
        self.means.add(outputs)
        self.step += 1
        self.times.add(waited - began, time.perf_counter() - began)

    def _check_finite(self, loss: Tensor, batch: Batch) -> None:
        """Stop before the optimizer sees a loss that is not finite; every process must call this."""
        broken = not math.isfinite(loss.item())
        if broken:
            where = ", ".join(f"{case} at {corner}" for case, corner in zip(batch.cases, batch.corners, strict=True))
            print(f"loss {loss.item()} on process {self.process.rank}; patches: {where}", flush=True)
        if self.process.any(broken):
            raise TrainingError(
                f"the loss of step {self.step} is not finite (patches above); nothing was updated and the "
                f"last checkpoint in {self.run / CHECKPOINTS} is good. "
                "Try a lower train.learning_rate or train.precision=fp32"
            )

    def _log(self, log: TrainingLog | None) -> None:
        settings = self.config.train
        if self.step % self.log_every and self.step != settings.steps:
            return
        terms, removal = self.means.take(self.process)
        times = self.times.take()
        if log is None:
            return
        log.add(
            "train",
            self.step,
            **terms,
            lr=learning_rate(self.step - 1, settings),
            **times,
            memory_mb=peak_memory_mb(self.process.device),
        )
        if removal:
            log.add("removal", self.step, **removal)
        log.progress(self.step, terms["loss"], times["step_s"])

    def _validate(self, log: TrainingLog | None) -> None:
        if not self.split.val:
            return
        found = validate(self.engine, self.config, self.data, self.split.val, self.process)
        folder = self.run / CHECKPOINTS
        best = keep_if_best(self.engine, folder, found.mean, self.step, self.process)
        if log is not None:
            log.add("validation", self.step, dice=found.dice, mean=found.mean)
            if found.picture is not None:
                log.picture(self.step, found.picture)
            print(
                f"validation at step {self.step}: mean Dice {found.mean:.3f}{' (best so far)' if best else ''}",
                flush=True,
            )

    def _save(self) -> None:
        if self.saved_at == self.step:
            return
        meta = checkpoint.CheckpointMeta(
            self.step, self.process.world, self.config.runtime.zero_stage, self.science, self._elapsed()
        )
        checkpoint.save(self.engine, self.run, meta, self.process, self.config.runtime.keep_last)
        self.saved_at = self.step

    def _finish(self) -> None:
        self._save()
        origin = {"science": self.science, "split_hash": self.split.hash, **self.origin}
        record = run_record(self.config, self.experiment, origin, self.process, self._elapsed())
        best = self.run / CHECKPOINTS / BEST if self.config.train.select == "best" else None
        write_result(self.engine, self.run, best, record, self.process)
        self.process.wait_for_all()
        self.process.say(f"trained {self.step} steps in {self._elapsed():.0f} s; model in {self.run}")

    def _elapsed(self) -> float:
        return self.wall_s + time.monotonic() - self.started
