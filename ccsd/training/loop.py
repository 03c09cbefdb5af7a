"""The training: the same program on a laptop's CPU, one GPU and many nodes."""

import gc
import math
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from ccsd.config.load import plugins_in_words
from ccsd.config.schema import Config
from ccsd.config.science import science_digest
from ccsd.data import PatchReader, PatchStream, check_shared_memory
from ccsd.data.patches import check_cases
from ccsd.device import cpu_note, explain_out_of_memory, require_precision
from ccsd.errors import TrainingError
from ccsd.records import read_events
from ccsd.study import BEST, CHECKPOINTS, TRACE, split_for
from ccsd.training import checkpoint
from ccsd.training.distributed import Process, joined
from ccsd.training.engine import learning_rate, prepared_objective, resumed_engine
from ccsd.training.fine_tuning import fine_tuning_of, replaced
from ccsd.training.host import garbage_collected_by_hand, move_near
from ccsd.training.log import GradientNorms, StepMeans, TrainingLog, peak_memory
from ccsd.training.result import finished, keep_if_best, run_record, write_result
from ccsd.training.sinks import check_installed
from ccsd.training.step import LossScale, Outcome, Stepper
from ccsd.training.stop import StopRequest
from ccsd.training.timing import Trace, clock_of
from ccsd.training.validate import check_validation, validate
from ccsd.triton import missing_for_triton
from preprocess.dataset import content_hash, read_fingerprint
from preprocess.splits import Split

LESS_MEMORY = (
    "A smaller runtime.micro_batch or runtime.decode_batch (at least 1), runtime.activation_checkpointing=true, or "
    "runtime.cuda_graphs=false needs less and does not change the result; see docs/how-to/gpus.md"
)
MOST_BROKEN = 5
"""Steps in a row that may be skipped because their gradients are not finite."""


def train(
    config: Config,
    data: Path,
    run: Path,
    experiment: str | None = None,
    stop_after: float | None = None,
    log_every: int = 10,
    device: str | None = None,
) -> int:
    """Train one model, or resume where an earlier call stopped.

    Parameters
    ----------
    config
        The resolved configuration.
    data
        Folder of converted cases with a split.
    run
        Folder of the run, for metrics.jsonl and checkpoints, and at the end for model.safetensors and run.json.
    experiment
        Name to record.
    stop_after
        Minutes after the start of the process by which it must have saved and stopped; None sets no limit.
    log_every
        Steps between two log entries.
    device
        auto or cpu, as in `ccsd.device.choose_device`.

    Returns
    -------
    int
        Exit code: 0 when finished, 75 when stopped by a signal or the time, with the state saved, 130 after Ctrl-C.

    Raises
    ------
    UsageError, InputError
        If the configuration, the data, the device or an existing run folder cannot be used.
    TrainingError
        If the loss or the gradients are no longer finite, or a checkpoint cannot be saved.
    """
    check_installed(config.runtime.sinks)
    split = split_for(data, "the configuration", config.task, config.split.fold)
    science = science_digest(config, split.hash)
    stop = StopRequest(stop_after)
    with ExitStack() as stack:
        process = stack.enter_context(joined(device, run))
        stack.enter_context(checkpoint.report_full_disk(run))
        content = process.decide(lambda: content_hash(data, (*split.train, *split.val)))
        # Results of versions that did not look at the contents of cases count as made from these.
        sciences = science_digest(config, split.hash, content), science
        if process.decide(lambda: finished(run, sciences)):
            process.say(f"{run}: already trained with this configuration")
            return 0
        require_precision(config.train.precision, process.device)
        if process.device.type == "cuda":
            move_near(process.device, config.runtime.workers)
            stack.enter_context(garbage_collected_by_hand())
            stack.enter_context(explain_out_of_memory(process.device, LESS_MEMORY))
        elif note := cpu_note(config.train.precision):
            process.say(f"note: {note}")
        return _Training(config, data, run, experiment, split, sciences, content, process, stop, log_every).go()


class _Training:
    """One training's state. Every method is called by every process."""

    def __init__(
        self,
        config: Config,
        data: Path,
        run: Path,
        experiment: str | None,
        split: Split,
        sciences: tuple[str, str],
        content: str,
        process: Process,
        stop: StopRequest,
        log_every: int,
    ) -> None:
        self.config, self.data, self.run, self.experiment = config, data, run, experiment
        self.split, self.science, self.process, self.stop = split, sciences[0], process, stop
        self.log_every = log_every
        fingerprint = read_fingerprint(data)  # at once: a missing file must not be noticed only after the last step
        self.origin = {
            "science": self.science,
            "split_hash": split.hash,
            "content_hash": content,
            "data_hash": fingerprint["data_hash"],
            "spacing_mm": fingerprint["spacing_mm"]["median"],
        }
        objective = prepared_objective(config, process.device)
        self.fine_tuning = fine_tuning_of(config, run)
        if science_digest(config, split.hash) != sciences[1]:  # joining the other processes may have taken minutes
            raise replaced(config.train.init)
        found = process.decide(lambda: checkpoint.to_resume(run, sciences))
        self.engine = resumed_engine(objective, config, run, found, process, self.fine_tuning)
        scale, good_steps = (None, 0) if found is None else (found.loss_scale, found.good_steps)
        self.scale = LossScale(config.train.precision, scale, good_steps)
        self.broken = 0
        """Steps in a row whose gradient could not be used."""
        self.norms = GradientNorms()
        self.means, self.times = StepMeans(process.device, config.task.modalities), clock_of(config, process)
        self.trace = Trace(run / TRACE, config.runtime.profile if process.is_first else None, process.device)
        self.save_due = False
        self.saved_at = -1 if found is None else found.step
        self.step, self.wall_s = (0, 0.0) if found is None else (found.step, found.wall_s)
        self.first = self.step
        self.started = time.monotonic()

    def go(self) -> int:
        """Train to the end or to a stop, then write the result or a checkpoint."""
        settings = self.config.train
        patch = " x ".join(str(side) for side in settings.patch)
        self.process.say(
            f"training {self.run.name} (cases: {len(self.split.train)}, steps: {settings.steps}, "
            f"batch: {settings.batch_size}, patch: {patch}, processes: {self.process.world}, "
            f"device: {self.process.device.type})"
        )
        if (copies := self.process.world - settings.batch_size) > 0:
            self.process.say(
                f"note: {copies} of the processes have no sample of their own and compute copies, which saves no time; "
                f"use at most {settings.batch_size} processes for train.batch_size={settings.batch_size}"
            )
        if self.process.device.type == "cuda" and (missing := missing_for_triton()):
            self.process.say(f"note: steps take longer: the fast kernels for GPUs need {missing}; install it")
        log = None
        if self.process.is_first:
            log = TrainingLog(self.run, self.step, settings.steps, self.config.runtime.sinks)
            if self.fine_tuning and not self.step:
                self.fine_tuning.report(log, settings, self.origin["data_hash"], self.split.hash)
        try:
            stopped = self._steps(log)
        finally:
            if log is not None:
                log.close()
        if stopped:
            self._save()
            self.process.say(f"stopped at step {self.step}, which is saved; the next start resumes from it")
            return self.stop.exit_code
        self._finish()
        return 0

    def _steps(self, log: TrainingLog | None) -> bool:
        """Run the remaining steps; return True if a stop was requested."""
        batches = self._batches()
        left = islice(batches, self.config.train.steps - self.step)
        stepper = Stepper(self.engine, self.config, self.process, self.scale, left, self.times.parts)
        try:
            if self._was_stopped_in_validation() and not self._validate(log):
                return True
            while self.step < self.config.train.steps:
                self._step(stepper)
                self._log(log)
                self._save_if_due()
                if self._validates_now and not self._validate(log):
                    return True
                if self._must_stop():
                    return True
        finally:
            batches.close()
            self.trace.close()
        return False

    @property
    def _validates_now(self) -> bool:
        settings = self.config.train
        return bool(self.split.val) and (self.step % settings.validate_every == 0 or self.step == settings.steps)

    def _was_stopped_in_validation(self) -> bool:
        """Return whether the validation of the checkpoint's step, which follows the saving, is still missing."""
        if not self.step or not self._validates_now:
            return False
        return not self.process.decide(
            lambda: any(e["event"] == "validation" and e["step"] == self.step for e in read_events(self.run))
        )

    def _must_stop(self) -> bool:
        return self.process.any(self.stop.requested())

    def _save_if_due(self) -> None:
        """Save at the first good step once saving is due: always before a validation, which may take long."""
        self.save_due |= self._validates_now or self.step % self.config.runtime.checkpoint_every == 0
        if self.save_due and not self.broken:
            self._save()

    def _batches(self) -> PatchStream:
        settings = self.config.train
        self.process.decide(lambda: check_cases(self.data, self.split.train))
        self.process.decide(lambda: check_validation(self.config, self.data, self.split.val))
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
            checked=True,
        )
        is_gpu, workers = self.process.device.type == "cuda", self.config.runtime.workers
        check_shared_memory(reader, workers, self.process.local_world)
        self.process.wait_for_all()  # no process takes its share before all have seen how much is free
        return PatchStream(reader, workers=workers, start=self.step, pinned=is_gpu)

    def _step(self, stepper: Stepper) -> None:
        """Run one optimizer step."""
        began = time.perf_counter()
        outcome = stepper.take(self.step, self.means)
        self.norms.add(outcome.norm)
        self.broken = 0 if self.scale.update(good=math.isfinite(outcome.norm)) else self.broken + 1
        if not math.isfinite(outcome.norm):
            self._explain(outcome)
        if self.step == self.first:
            self.process.end_first_step()
        self.step += 1
        self.times.add(time.perf_counter() - began)
        if self.trace.step():
            print(f"wrote a trace of {self.config.runtime.profile} steps to {self.run / TRACE}", flush=True)

    def _explain(self, outcome: Outcome) -> None:
        """Report a skipped step; stop if the loss is not finite, or after several such steps."""
        values, batch = [loss.item() for loss in outcome.losses], outcome.batch
        where = ", ".join(f"{case} at {corner}" for case, corner in zip(batch.cases, batch.corners, strict=True))
        everyone = self.process.gather((all(map(math.isfinite, values)), values, where))
        for rank, (_, found, patches) in enumerate(everyone):
            self.process.say(f"loss {', '.join(f'{value:g}' for value in found)} on process {rank}; patches: {patches}")
        good = f"nothing was updated and the last checkpoint in {self.run / CHECKPOINTS} is good"
        remedy = "Try a lower train.learning_rate or train.precision=fp32"
        if not all(is_finite for is_finite, _, _ in everyone):
            raise TrainingError(f"the loss of step {self.step} is not finite (patches above); {good}. {remedy}")
        if self.broken >= MOST_BROKEN:
            raise TrainingError(
                f"the gradients of {self.broken} steps in a row, the last one {self.step}, are not finite (patches "
                f"above); {good}. {remedy}"
            )
        scale = f"; loss scale is now {self.scale.value:g}" if self.scale.enabled else ""
        self.process.say(f"step {self.step} was skipped: its gradient is not finite (patches above){scale}")

    def _log(self, log: TrainingLog | None) -> None:
        settings = self.config.train
        if self.step % self.log_every and self.step != settings.steps:
            return
        terms, removal = self.means.take(self.process)
        times, norms = self.times.take(), self.norms.take()
        if not gc.isenabled():
            gc.collect(1)
        if log is None:
            return
        log.add(
            "train",
            self.step,
            **terms,
            **norms,
            lr=learning_rate(self.step - 1, settings),
            **times,
            **peak_memory(self.process.device),
        )
        if removal:
            log.add("removal", self.step, **removal)
        log.progress(self.step, terms["loss"], times["step_s"])

    def _validate(self, log: TrainingLog | None) -> bool:
        """Validate; return False if a stop was requested meanwhile: the validation is then repeated after resuming."""
        found = validate(self.engine, self.config, self.data, self.split.val, self.process, self._must_stop)
        if found is None:
            return False
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
        return True

    def _save(self) -> None:
        self.save_due = False
        if self.saved_at == self.step:
            return
        meta = checkpoint.CheckpointMeta(
            self.step,
            self.process.world,
            self.config.runtime.zero_stage,
            self.science,
            self._elapsed(),
            *self.scale.state,
            plugins_in_words(self.config),
        )
        checkpoint.save(self.engine, self.run, meta, self.process, self.config.runtime.keep_last)
        self.saved_at = self.step

    def _finish(self) -> None:
        self._save()
        start = {"start": self.fine_tuning.record} if self.fine_tuning else {}
        record = run_record(self.config, self.experiment, self.origin | start, self.process, self._elapsed())
        best = self.run / CHECKPOINTS / BEST if self.config.train.select == "best" else None
        write_result(self.engine, self.run, best, record, self.split, self.process)
        self.process.wait_for_all()
        self.process.say(f"trained {self.step} steps in {self._elapsed():.0f} s; model in {self.run}")

    def _elapsed(self) -> float:
        return self.wall_s + time.monotonic() - self.started
