"""One stage of a training run: its steps, its epochs, and what is remembered between them."""

import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from splitrun.errors import ImageError, TrainingError
from splitrun.signals import check_stopped

from ..metrics import METRICS, Scores
from .checkpoint import save_checkpoint
from .data import BatchOrder, Loader, TrainingImages, check_read
from .objective import LossValues, Objective
from .recipe import Stage
from .record import StageRecord
from .trained_parts import build_optimizer, clipped_parameters, freeze, is_frozen, set_modes

if TYPE_CHECKING:
    from .run import Run


@dataclass
class Position:
    """Where a run stands: its next step, and the results of the stage so far.

    Attributes:
        steps: Number of steps of the whole run.
        seconds: Duration of the run.
        epoch_began: What ``seconds`` was when the epoch began.
        data_changes: What changed in the data set while the run was interrupted, in words.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    epoch_began: float = 0.0
    data_changes: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0

    def means(self) -> dict[str, float]:
        """Return the mean losses of the epoch so far."""
        return {name: value / self.step for name, value in self.sums.items()}


class StageRun:
    """One stage of a run: losses, optimiser, schedule and batches.

    Args:
        run: Run, at the position where the stage begins or continues.
        stage: Stage of the recipe.
        state: Checkpoint to continue from.
    """

    def __init__(self, run: "Run", stage: Stage, state: dict[str, Any] | None) -> None:
        self.run, self.stage, self.position = run, stage, run.position
        accelerator = run.accelerator
        freeze(run.student, stage)
        objective = Objective(run.student, run.teacher, stage, processes=run.processes)
        optimizer = build_optimizer(run.student, stage.optimizer)
        samples = run.data.training.samples
        self.order = order = BatchOrder(
            len(samples),
            stage.batch_size,
            run.plan.seed + 1000 * run.position.stage,
            accelerator.process_index,
            run.processes,
        )
        self.schedule = LambdaLR(
            optimizer, lambda step: stage.schedule.at(step / order.steps, stage.epochs)
        )
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            # With other images, an epoch has other steps.
            position = run.position
            self.schedule.last_epoch = position.epoch * order.steps + min(
                position.step, order.steps
            )
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.scaler = getattr(accelerator, "scaler", None)
        if state is not None and self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.images = TrainingImages(samples, run.spec, stage.augmentation)
        self.began = time.monotonic() - run.position.seconds

    def train(self) -> None:
        """Run the epochs that are left, and keep the weights that the stage selects."""
        position, stage = self.position, self.stage
        if stage.select == "improved" and not position.best:
            self._keep(0, *self.run.validate())
        left = stage.epochs - position.epoch
        order = self.order.batches(position.epoch, position.step, epochs=left)
        # One loader for all epochs: while one is validated, the next one's first images are read.
        batches = iter(Loader(self.images, self.run.plan.workers, batch_sampler=order))
        try:
            while position.epoch < stage.epochs:
                self._epoch(batches)
                self._validate()
                position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
                position.epoch_began = position.seconds
                self._save_checkpoint()
        except ImageError as error:
            self._save_checkpoint()
            raise TrainingError(
                f"{error.message} What was trained is kept.",
                next_step="Mend the image and continue with --resume, or leave it out: --resume "
                "--skip-unreadable --accept-changed-data.",
            ) from error
        self._end()

    def _epoch(self, batches: Iterator[tuple[Any, Any]]) -> None:
        position, plan, steps = self.position, self.run.plan, self.order.steps
        set_modes(self.run.student, self.stage)
        title = f"stage {position.stage + 1}, epoch {position.epoch + 1}/{self.stage.epochs}"
        saved = time.monotonic()
        progress = self.run.progress
        left = itertools.islice(batches, max(steps - position.step, 0))
        for images, targets in progress.track(left, title, total=steps, done=position.step):
            check_stopped()
            check_read(images)
            losses = {
                name: float(v.detach()) for name, v in self._step(images, targets, title).items()
            }
            position.step, position.steps = position.step + 1, position.steps + 1
            for name, value in losses.items():
                position.sums[name] = position.sums.get(name, 0.0) + value
            progress.step(_summary(position.means()))
            self.run.tracked.step(position.steps, losses["loss"], position.rate)
            if time.monotonic() - saved > 60 * plan.checkpoint_minutes:
                self._save_checkpoint()
                saved = time.monotonic()

    def _step(self, images: Any, targets: Any, title: str) -> LossValues:
        """Update the weights with one batch; return its losses."""
        accelerator, position, stage = self.run.accelerator, self.position, self.stage
        words = f"{self.run.plan.seed} {position.stage} {position.epoch} {position.step} "
        seed = hashlib.sha256(f"{words}{accelerator.process_index}".encode()).digest()[:8]
        torch.manual_seed(int.from_bytes(seed, "little") >> 1)
        images, targets = _to(images, accelerator.device), _to(targets, accelerator.device)
        self.optimizer.zero_grad()
        means: LossValues = {}
        size = -(-len(images) // stage.parts)
        for part in range(0, len(images), size):
            with accelerator.autocast():
                losses = self.objective(images[part : part + size], targets[part : part + size])
            if not torch.isfinite(losses["loss"]):
                raise TrainingError(
                    f"The loss is no longer a number ({title}, step {position.step + 1}).",
                    next_step="Lower the learning rate, or set clip_norm in the recipe.",
                )
            share = len(images[part : part + size]) / len(images)
            accelerator.backward(share * (losses["loss"] + losses.get("auxiliary", 0.0)))
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + share * value.detach()
        if stage.clip_norm is not None:
            accelerator.clip_grad_norm_(clipped_parameters(self.objective), stage.clip_norm)
        position.rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        return means

    def _validate(self) -> None:
        """Log the epoch, with scores if it is validated, and keep its weights if they are best."""
        position, stage, run = self.position, self.stage, self.run
        epoch = position.epoch + 1
        validated = stage.validates(epoch)
        # Of models of variable rate, one level is validated.
        beta = getattr(run.spec.bottleneck, "beta", None)
        began = time.monotonic()
        found, bits = run.validate() if validated else ({}, None)
        ended = time.monotonic()
        position.seconds = ended - self.began
        run.end_epoch(
            {
                "stage": position.stage + 1,
                "epoch": epoch,
                **{name: round(value, 6) for name, value in position.means().items()},
                "learning_rate": position.rate,
                "seconds": round(position.seconds - position.epoch_began, 3),
                "validation_seconds": round(ended - began, 3) if validated else 0.0,
                **{f"val_{name}": value for name, value in found.items()},
                **({} if bits is None else {"val_bits": bits}),
                **({"val_beta": beta} if validated and beta else {}),
            }
        )
        score = found.get(METRICS[run.spec.task][0], -1.0)
        if validated and (stage.select == "last" or score > position.best.get("score", -1.0)):
            self._keep(epoch, found, bits)

    def _keep(self, epoch: int, found: Scores, bits: float | None) -> None:
        """Remember the weights as they are; epoch 0 is what the stage began with."""
        self.position.best = {
            "score": found[METRICS[self.run.spec.task][0]],
            "scores": found,
            "bits": bits,
            "epoch": epoch,
            "model": {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.run.student.state_dict().items()
            },
        }

    def _save_checkpoint(self) -> None:
        self.position.seconds = time.monotonic() - self.began
        if self.run.main:
            state = {
                "identity": self.run.identity,
                "stages": self.run.stages_so_far(),
                "position": vars(self.position),
                "model": self.run.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict() if self.scaler is not None else {},
            }
            save_checkpoint(self.run.plan.run, state)

    def _end(self) -> None:
        """Take the weights that are kept, and fit the tables' quantiles to the densities."""
        position, stage, student = self.position, self.stage, self.run.student
        student.load_state_dict(position.best["model"])
        if not is_frozen("bottleneck", stage):
            student.bottleneck.update_quantiles()
        record = StageRecord(
            objective=stage.objective,
            learning=stage.learning,
            epochs=stage.epochs,
            batch_size=stage.batch_size,
            learning_rate=stage.optimizer.learning_rate,
            frozen=list(stage.frozen),
            kept_epoch=position.best["epoch"],
            scores=position.best["scores"],
            bits=position.best["bits"],
        )
        position.done.append(record.model_dump())
        position.stage, position.epoch, position.best = position.stage + 1, 0, {}


def _summary(means: dict[str, Any]) -> str:
    words = [f"loss {means['loss']:.4g}"]
    words += [f"{means['bits'] / 8:,.0f} bytes"] if "bits" in means else []
    words += [f"{means['correct']:.1%} correct"] if "correct" in means else []
    return ", ".join(words)


def epoch_summary(line: dict[str, Any]) -> str:
    """Return a line of the log in words: losses, scores in percent, seconds."""
    scores = [
        f"{name.removeprefix('val_')} {value:.2%}"
        for name, value in line.items()
        if name.startswith("val_") and name not in ("val_bits", "val_beta")
    ]
    if "val_bits" in line:
        scores.append(f"{line['val_bits'] / 8:,.0f} bytes by the density")
    at = f" at β {line['val_beta']:g}" if "val_beta" in line else ""
    validation = f"; validation{at}: {', '.join(scores)}" if scores else ""
    return (
        f"stage {line['stage']} epoch {line['epoch']}: {_summary(line)}{validation}; "
        f"{line['seconds']:.0f} s"
    )


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [{name: tensor.to(device) for name, tensor in item.items()} for item in value]
    return value.to(device)
