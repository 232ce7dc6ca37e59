"""The state of one training, and how it moves: by a step, by an epoch, to and from a checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from weathermill.errors import CheckpointError, TrainingInterruptedError, UnwritableOutputError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.store import TensorStore
from weathermill.training.averages import LossAverages
from weathermill.training.budget import MemoryReport, log_ledger, make_budget
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.config import TrainConfig
from weathermill.training.feed import Epoch, Feed, make_feed
from weathermill.training.history import go_on
from weathermill.training.meter import StarvationMeter
from weathermill.training.objective import log_weights, make_loss
from weathermill.training.optimiser import OptimiserConfig
from weathermill.training.progress import ProgressCallback
from weathermill.training.resuming import identity, out_of_patience, resumed_phases
from weathermill.training.schedule import make_schedule
from weathermill.training.state import generator, random_state, seed_everything, set_random_state
from weathermill.training.step import TrainingStep
from weathermill.training.tracker import MetricLog, Tracker, run_id
from weathermill.training.watchdog import Recorder, SpikeGuard, Watchdog

logger = logging.getLogger(__name__)

_POINTS = 1000
# On a slow device the watch is kept by the clock, so that metrics are never older than this.
_WATCH_SECONDS = 10.0


class Trainer:
    """One training from its start, or from a checkpoint, to its end; see `engine.train` for the parameters."""

    def __init__(
        self,
        store: TensorStore,
        model_config: ModelConfig,
        config: TrainConfig,
        checkpoints: CheckpointManager | None,
        tracker: Tracker,
        device: torch.device,
    ) -> None:
        self.store, self.model_config, self.config = store, model_config, config
        self.checkpoints, self.tracker, self.device = checkpoints, tracker, device
        seed_everything(config.seed)
        self.forecaster = Forecaster.from_store(store, model_config)
        self.noise = torch.Generator(device)
        self.noise.manual_seed(int(generator(config.seed, "noise").integers(2**62)))
        loss = make_loss(config, store)
        step = replace(config.step, deterministic=config.step.deterministic or config.deterministic)
        if config.checkpointing is not None:
            step = replace(step, checkpointing=config.checkpointing is True)
        self.budget = make_budget(self.forecaster, store, config, step, device, loss)
        self.step = TrainingStep(
            self.forecaster,
            loss,
            OptimiserConfig(config.learning_rate, config.weight_decay),
            step if self.budget is None else self.budget.step,
            config.rollout_loss,
            device,
            self.noise,
        )
        self.forecaster = self.step.forecaster
        self.feed = self._make_feed("train", config.most_steps, shuffle=True)
        self.validation_steps = config.validation_steps
        self.validation: Feed | None = None
        if "validation" in store.splits:
            self.validation = self._make_feed("validation", self.validation_steps, shuffle=False)
        # With a validation split, corrections are those of its last batch.
        self.forecaster.constraints.record(self.validation is None)
        self.total_steps = sum(self.feed.batches(config.steps(e)) for e in range(config.epochs))
        self.rate_of = make_schedule(config.schedule, config.learning_rate, self.total_steps)
        every = config.log_every_steps or max(1, self.total_steps // _POINTS)
        self.averages = LossAverages(every, self.total_steps)
        self.recorder = Recorder(config.watch_every_steps, store.channels.n_prognostic, device)
        self.watchdog = Watchdog(
            store.channels, store.times, store.calendar, scaled=self.step.config.precision == "fp16"
        )
        self.spikes = SpikeGuard(config.skip_spikes)
        self.meter = StarvationMeter(self.feed, self.step.optimiser, device)
        self.identity = identity(store.manifest["identity"], self.forecaster.config, config)
        self.digests = {} if checkpoints is None else checkpoints.digests
        self.phases = go_on((), 0, 0, self.identity, self.digests)

        self.epoch = self.batch = self.global_step = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch, self.best_loss = 0, math.inf
        self.resumed_at: int | None = None
        self._set_aside = False
        self.advice = ""
        self._samples, self._seconds = 0, 0.0
        self._rate: float | None = None
        self._ahead: Epoch | None = None
        self._best_state: dict[str, torch.Tensor] | None = None
        self._saved_at, self._saved_time = -1, time.monotonic()
        self._watched = time.monotonic()
        self._last_loss = math.nan
        self.log = MetricLog(tracker)

    def _make_feed(self, split: str, steps: int, shuffle: bool) -> Feed:
        config = self.config
        return make_feed(
            self.store,
            split,
            steps,
            config.batch_size,
            self.device,
            config.feed,
            shuffle,
            config.seed,
            consecutive=config.consecutive if shuffle else 1,
            threads=config.threads,
            device_budget=None if self.budget is None else self.budget.for_data(self.device),
        )

    def close(self) -> None:
        """Free the feeds, send the last metrics, and wait for a checkpoint under way."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.log.close)
            stack.callback(self.feed.close)
            if self.validation is not None:
                stack.callback(self.validation.close)
            if self.checkpoints is not None:
                try:
                    self.checkpoints.wait()
                except UnwritableOutputError as error:
                    logger.warning(
                        "The last checkpoint was not written; the earlier ones are intact: %s", error
                    )

    def start(self, resume: bool, report_memory: MemoryReport | None = None) -> None:
        """Take over the newest intact checkpoint, or prepare for a fresh training."""
        logger.info("Boundary of the grid: %s", self.forecaster.boundary)
        edges = self.forecaster.config.edges.geographic(self.forecaster.latitude)
        self.tracker.log_params({"edges": edges.name})
        if not resume:
            log_weights(self.step.loss, self.forecaster, self.tracker)
            if self.budget is not None:
                log_ledger(self.budget.ledger, self.tracker, self.budget.measured)
                if report_memory is not None:
                    report_memory(self.budget.ledger, self.budget.measured)
            # While the first checkpoint is saved.
            self._ahead = self.feed.epoch(0, 0, self.config.steps(0))
        # A crash may have come after metrics were sent and before the first checkpoint.
        self.log = MetricLog(self.tracker, resumed=resume)
        if self.checkpoints is None:
            return
        found = self.checkpoints.latest() if resume else None
        if found is None:
            if resume:
                logger.info(
                    "There is no checkpoint in %s yet: training starts anew.", self.checkpoints.folder
                )
            self._set_aside = self.checkpoints.set_aside()
            # A first checkpoint before the first step: it tells an unwritable folder before any work, and lets a
            # training that is killed early go on in the same run of the tracker.
            self._save(None, must=True)
            return
        checkpoint, state = found
        self.phases, changes = resumed_phases(checkpoint, state, self.config, self.identity, self.digests)
        for change in changes:
            logger.warning("From step %d on this is another training: %s", checkpoint.step + 1, change)
        self.checkpoints.discard_after(checkpoint)
        self._load(state)
        self.resumed_at = self.global_step
        logger.info(
            "Resuming from %s: epoch %d, batch %d, step %d of %d.",
            checkpoint.path.name,
            self.epoch + 1,
            self.batch,
            self.global_step,
            self.total_steps,
        )

    def undo_start(self) -> None:
        """Where a new training failed before a step of it was saved, bring back the checkpoints that it set aside."""
        if self.checkpoints is not None and self._set_aside:
            self.checkpoints.bring_back()

    def state_dict(self) -> dict[str, Any]:
        """All that later steps and metrics depend on."""
        return {
            "identity": self.identity,
            "step": self.step.state_dict(),
            "random": random_state(),
            "noise": self.noise.get_state(),
            "position": {"epoch": self.epoch, "batch": self.batch, "step": self.global_step},
            "rollout": self.config.steps(min(self.epoch, self.config.epochs - 1)),
            "sums": self.averages.state_dict(),
            "history": self.history,
            "best": {"epoch": self.best_epoch, "loss": self.best_loss},
            "skipped": self.watchdog.skipped,
            "spikes": self.spikes.state_dict(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.step.load_state_dict(state["step"])
        set_random_state(state["random"])
        self.noise.set_state(state["noise"])
        position = state["position"]
        self.epoch, self.batch, self.global_step = position["epoch"], position["batch"], position["step"]
        self.averages.load_state_dict(state["sums"])
        self.history = state["history"]
        self.best_epoch, self.best_loss = state["best"]["epoch"], state["best"]["loss"]
        self.watchdog.skipped = state["skipped"]
        self.spikes.load_state_dict(state["spikes"])
        self.step.largest_norm.fill_(self.spikes.limit)
        self._saved_at = self.global_step

    def run(self, progress: ProgressCallback, stop: Callable[[], bool]) -> None:
        """Train to the end, or until a stop is asked for."""
        while self.epoch < self.config.epochs and not self._out_of_patience():
            self._run_epoch(progress, stop)
            self._end_epoch(progress, stop)
        self.log.flush()

    def _run_epoch(self, progress: ProgressCallback, stop: Callable[[], bool]) -> None:
        steps = self.config.steps(self.epoch)
        self.meter.reset()
        began = time.perf_counter()
        batches = self._ahead or self.feed.epoch(self.epoch, self.batch, steps)
        self._ahead = None
        if self.epoch + 1 < self.config.epochs:
            # Its first batches are read while the last ones of this epoch are worked on, validated and saved.
            self._ahead = self.feed.epoch(self.epoch + 1, 0, self.config.steps(self.epoch + 1), after=True)
        for batch in self.meter.batches(batches):
            rate = self.rate_of(self.global_step)
            if rate != self._rate:
                self.step.set_learning_rate(rate)
                self._rate = rate
            result = self.step(batch.window)
            self.meter.stepped()
            self.global_step += 1
            self.batch += 1
            self.recorder.add(self.global_step, batch.starts, result)
            if self.global_step % self.config.watch_every_steps == 0:
                self._watch()
                # At these steps alone: the limit must not depend on when the clock made the watchdog look.
                self.step.largest_norm.fill_(self.spikes.update())
            elif time.monotonic() - self._watched > _WATCH_SECONDS:
                self._watch()
            progress(self.global_step, self.total_steps, self._text())
            if stop():
                self._stop()
            if self._checkpoint_due() and self.batch < self.feed.batches(steps):
                self._save(None)
        self._watch()
        seconds = time.perf_counter() - began
        self._samples += self.meter.samples
        self._seconds += seconds
        self._epoch_seconds = seconds

    def _watch(self) -> None:
        """Bring the losses of the last steps to the host, look at them, and put them on record."""
        self._watched = time.monotonic()
        if not len(self.recorder):
            return
        records = self.recorder.take()
        self.meter.sample()
        self.watchdog.check(records)
        if self.spikes.observe(records):
            self.log.add(records[-1].step, {"train/skipped_steps": self.spikes.skipped})
        for record in records:
            point = self.averages.add(record)
            if point is not None:
                self.log.add(record.step, {**point, "train/learning_rate": self.rate_of(record.step - 1)})
        self._last_loss = records[-1].loss
        self.log.send()

    def _text(self) -> str:
        loss = "" if math.isnan(self._last_loss) else f", loss {self._last_loss:.4g}"
        last = f", validation {self.history[-1]['validation_loss']:.4g}" if self.history else ""
        return f"epoch {min(self.epoch + 1, self.config.epochs)}/{self.config.epochs}{loss}{last}"

    def _end_epoch(self, progress: ProgressCallback, stop: Callable[[], bool]) -> None:
        train_loss = self.averages.end_epoch()
        validation_loss = train_loss if self.validation is None else self.validate()
        speed = self.meter.samples / self._epoch_seconds if self.meter.samples else 0.0
        shares = self.meter.summary()
        self.advice = self.meter.advice(shares)
        row = {
            "epoch": self.epoch + 1,
            "step": self.global_step,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "learning_rate": self.rate_of(self.global_step - 1),
            "rollout": self.config.steps(self.epoch),
        }
        self.log.add(
            self.global_step,
            {"epoch": row["epoch"], "train/epoch_loss": train_loss, "validation/loss": validation_loss},
        )
        if self.device.type == "cuda":
            shares["memory/peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        # How much the hard constraints had to correct, so that nobody takes them for skill.
        if corrections := self.forecaster.constraints.corrections():
            self.log.add(self.global_step, {f"constraints/{name}": v for name, v in corrections.items()})
        self.log.add(self.global_step, {"speed/samples_per_second": speed, **shares})
        self.history.append(
            {**row, "seconds": self._epoch_seconds, "samples_per_second": speed, **_short_names(shares)}
        )
        logger.debug("Epoch %d: %s", row["epoch"], self.advice)
        if validation_loss < self.best_loss:
            self.best_epoch, self.best_loss = row["epoch"], validation_loss
            if self.checkpoints is None:
                self._best_state = {k: v.detach().clone() for k, v in self.step.state_dict().items()}
        self.epoch += 1
        self.batch = 0
        last = self.epoch >= self.config.epochs or self._out_of_patience()
        self._save(validation_loss, must=last)
        if stop() and not last:
            self._stop()

    def validate(self) -> float:
        """Mean loss over the validation split, with the averaged weights where there are any.

        Neither random streams nor BatchNorm statistics change.
        """
        total = torch.zeros(
            (), dtype=torch.float64, device=self.device if self.device.type != "mps" else "cpu"
        )
        count = 0
        with self.step.averaged_weights():
            for batch in self.validation.epoch(0, steps=self.validation_steps):
                loss = self.step.evaluate(batch.window).loss.to(total.device)
                total += loss.double() * len(batch.starts)
                count += len(batch.starts)
        return float(total) / count

    def _out_of_patience(self) -> bool:
        return out_of_patience(self.config, self.epoch, self.best_epoch)

    def _checkpoint_due(self) -> bool:
        steps, minutes = self.config.checkpoint_every_steps, self.config.checkpoint_every_minutes
        if steps is not None and self.global_step % steps == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_time > 60 * minutes

    def _save(self, metric: float | None, must: bool = False) -> None:
        """Save a checkpoint, once the tracker has all that the checkpoint's state takes as recorded."""
        self._watch()
        self.log.flush()
        if self.checkpoints is None or (self._saved_at == self.global_step and metric is None):
            return
        try:
            self.checkpoints.save(
                self.state_dict(),
                epoch=self.epoch,
                step=self.global_step,
                metric=metric,
                run_id=run_id(self.tracker),
                wait=must,
                phases=self.phases,
            )
            self._saved_at = self.global_step
        except UnwritableOutputError as error:
            if must:
                raise
            logger.warning("Training goes on without this checkpoint; the earlier ones are intact: %s", error)
        self._saved_time = time.monotonic()
        self.meter.pause()

    def _stop(self) -> None:
        self._save(None, must=True)
        kept = "there is no checkpoint folder" if self.checkpoints is None else "its state is saved"
        raise TrainingInterruptedError(
            f"Training was asked to stop at step {self.global_step} of {self.total_steps}; {kept}.",
            where=None if self.checkpoints is None else str(self.checkpoints.folder),
        )

    @property
    def samples_per_second(self) -> float:
        """Mean over the epochs of this process, validation left out."""
        return self._samples / self._seconds if self._seconds else 0.0

    def best_forecaster(self) -> Forecaster:
        """Give the forecaster with the best weights, in evaluation mode.

        Raises
        ------
        CheckpointError
            When the best checkpoint cannot be read any more.
        """
        state = self._best_state
        if self.checkpoints is not None:
            found = self.checkpoints.best()
            if found is None:
                raise CheckpointError(
                    "No checkpoint holds a finished epoch.", where=str(self.checkpoints.folder)
                )
            checkpoint, saved = found
            if checkpoint.metric != self.best_loss:
                logger.warning(
                    "The checkpoint of the best epoch, %d, is not there; using that of epoch %d.",
                    self.best_epoch,
                    checkpoint.epoch,
                )
                self.best_epoch, self.best_loss = checkpoint.epoch, checkpoint.metric
            state = saved["step"]
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        # An average is kept of the parameters only; BatchNorm statistics are those of the training.
        weights.update({k.removeprefix("ema."): v for k, v in state.items() if k.startswith("ema.")})
        self.forecaster.load_state_dict(weights)
        self.forecaster.trained_with = {
            "phases": [phase.to_dict() for phase in self.phases],
            "epochs": self.epoch,
            "steps": self.global_step,
            "best_epoch": self.best_epoch,
        }
        if len(self.phases) > 1 and self.best_epoch < self.phases[-1].first_epoch:
            logger.warning(
                "No epoch since the change at step %d was better than epoch %d, whose weights these are.",
                self.phases[-1].first_step,
                self.best_epoch,
            )
        return self.forecaster.eval()


def _short_names(shares: dict[str, float]) -> dict[str, float]:
    return {key.split("/")[-1]: value for key, value in shares.items() if key.endswith("_share")}
