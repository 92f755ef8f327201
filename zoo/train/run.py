"""A training run: stages, epochs, steps, and a model folder at the end.

Every random number of a step is drawn from a seed that names the step, so a run that was
interrupted goes on bit for bit as it would have gone, on the same machine.
"""

import copy
import datetime
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from splitrun.errors import DependencyError, ImageError, TrainingError
from splitrun.files import check_free, new_file
from splitrun.machine import machine
from splitrun.signals import check_stopped

from ... import __version__
from ...progress import SILENT, Progress
from ..catalog import save
from ..datasets import digest, read_dataset
from ..metrics import METRICS, Result, Scores, scores
from ..outputs import results_of
from .checkpoint import load_checkpoint, other_run, save_checkpoint
from .data import EvaluationImages, Order, TrainingImages, evaluation_loader, training_loader
from .objective import Objective
from .plan import (
    LOG_NAME,
    MODEL_NAME,
    RECIPE_NAME,
    Plan,
    check_large_enough,
    check_same_data,
    known_labels,
    recipe_text,
    with_classes,
)
from .recipe import Stage
from .record import StageRecord, TrainingRecord
from .student import build_student, load_teacher
from .trained_parts import build_optimizer, freeze, is_frozen, of_loss, set_modes

_EVALUATION_BATCH = 16
_VERSIONS = ("torch", "torchvision", "timm", "compressai", "accelerate", "numpy", "pillow")


def train(plan: Plan, progress: Progress = SILENT, *, resume: bool = False) -> Path:
    """Train a model and save it in the run's folder.

    Args:
        plan: What, how and where.
        progress: Told of each step, epoch and image.
        resume: Go on from the checkpoint in the run's folder.

    Returns:
        The model's folder, which ``zoo.load`` takes.

    Raises:
        DependencyError: accelerate is not installed.
        DatasetError: The data set is missing or of another form.
        RecipeError: The recipe cannot be followed for this model.
        TrainingError: The run cannot go on, or its loss is no longer a number.
        OutputError: The folder is taken or cannot be written.
    """
    return _Run(plan, progress).train(resume)


@dataclass
class _Position:
    """Where a run stands: the step that comes next, and what the stage has found so far."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    lines: list[dict[str, Any]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0

    def means(self) -> dict[str, float]:
        """Return the losses of the epoch so far, per step."""
        return {name: value / self.step for name, value in self.sums.items()}


class _Run:
    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.accelerator = _accelerator(plan.mixed_precision)
        self.main = self.accelerator.is_main_process
        known = known_labels(plan.spec)
        check_same_data(plan)
        self.training = read_dataset(plan.spec.task, plan.data, "train", known)
        self.spec = with_classes(plan.spec, self.training)
        self.validation = read_dataset(
            self.spec.task, plan.data, "val", known or self.training.labels
        )
        check_large_enough(plan.recipe, len(self.training.samples), self.accelerator.num_processes)
        self.data_sha256 = digest(self.training.samples, self.validation.samples)

    def train(self, resume: bool) -> Path:
        plan = self.plan
        resume = resume and not _has_only_begun(plan.run)
        if not resume and self.main and not _has_only_begun(plan.run):
            check_free(plan.run)
        self.accelerator.wait_for_everyone()
        self.teacher = load_teacher(plan.recipe, plan.teacher)
        self.student = build_student(
            plan.recipe, self.spec, self.teacher, seed=plan.seed, start=plan.start
        )
        self.identity = self._identity()
        for module in (self.student, self.teacher):
            if module is not None:
                module.to(self.accelerator.device)
        position, state = _Position(), None
        if resume:
            state = load_checkpoint(plan.run, self.identity)
            position = _Position(**state["position"])
            if state["stages"] != self._stages(position):
                raise other_run(plan.run)
            self.student.load_state_dict(state["model"])
            if self._is_over(position):
                return plan.run / MODEL_NAME
        if self.main:
            plan.run.mkdir(parents=True, exist_ok=True)
            _write_text(plan.run / RECIPE_NAME, recipe_text(plan.recipe, self.spec))
        self._write_log(position)
        while position.stage < len(plan.recipe.stages):
            self._stage(position, state)
            state = None
        return self._finish(position)

    def _is_over(self, position: _Position) -> bool:
        """Say whether nothing is left to do, and the model is there."""
        stages = self.plan.recipe.stages
        last = position.stage == len(stages) - 1 and position.epoch == stages[-1].epochs
        return last and (self.plan.run / MODEL_NAME).is_dir()

    def _identity(self) -> str:
        """Return a digest of all that decides how the run goes, but for the stages to come."""
        plan = self.plan
        words = [
            plan.recipe.model_dump_json(exclude={"stages"}),
            self.spec.model_dump_json(),
            self.data_sha256,
            self.teacher.digest().hex() if self.teacher else "",
            self.student.digest().hex(),
            f"{plan.seed} {self.accelerator.num_processes} {plan.mixed_precision}",
        ]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _stages(self, position: _Position) -> list[str]:
        """Return what the recipe says of the stages so far: a run may gain others behind them."""
        stages = self.plan.recipe.stages[: position.stage + 1]
        return [one.model_dump_json() for one in stages]

    def _stage(self, position: _Position, state: dict[str, Any] | None) -> None:
        stage = self.plan.recipe.stages[position.stage]
        student = self.student
        freeze(student, stage)
        objective = Objective(
            student, self.teacher, stage, processes=self.accelerator.num_processes
        )
        optimizer = build_optimizer(student, stage.optimizer)
        order = Order(
            len(self.training.samples),
            stage.batch_size,
            self.plan.seed + 1000 * position.stage,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        schedule = LambdaLR(
            optimizer, lambda step: stage.schedule.at(step / order.steps, stage.epochs)
        )
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
        wrapped, optimizer = self.accelerator.prepare(objective, optimizer)
        scaler = getattr(self.accelerator, "scaler", None)
        if state is not None and scaler is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        dataset = TrainingImages(self.training.samples, self.spec, stage.augmentation)

        def keep() -> None:
            if self.main:
                save_checkpoint(
                    self.plan.run,
                    {
                        "identity": self.identity,
                        "stages": self._stages(position),
                        "position": copy.deepcopy(vars(position)),
                        "model": student.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "scaler": scaler.state_dict() if scaler is not None else {},
                    },
                )

        began = time.monotonic() - position.seconds
        while position.epoch < stage.epochs:
            self._epoch(position, stage, wrapped, optimizer, schedule, order, dataset, keep, began)
            position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
            position.seconds = time.monotonic() - began
            keep()
        self._end_stage(position, stage)

    def _epoch(
        self,
        position: _Position,
        stage: Stage,
        objective: nn.Module,
        optimizer: Any,
        schedule: LambdaLR,
        order: Order,
        dataset: TrainingImages,
        keep: Callable[[], None],
        began: float,
    ) -> None:
        plan, accelerator = self.plan, self.accelerator
        set_modes(self.student, stage)
        loader = training_loader(dataset, order, position.epoch, position.step, plan.workers)
        title = f"stage {position.stage + 1}, epoch {position.epoch + 1}/{stage.epochs}"
        kept = time.monotonic()
        for images, targets in self.progress.track(
            loader, title, total=order.steps, done=position.step
        ):
            check_stopped()
            _check_finite(images)
            _seed_step(plan.seed, position, accelerator.process_index)
            images = images.to(accelerator.device)
            targets = _to(targets, accelerator.device)
            optimizer.zero_grad()
            with accelerator.autocast():
                terms = objective(images, targets)
            if not torch.isfinite(terms["loss"]):
                raise TrainingError(
                    f"The loss is no longer a number ({title}, step {position.step + 1}).",
                    next_step="Lower the learning rate, or set clip_norm in the recipe.",
                )
            accelerator.backward(terms["loss"] + terms.get("auxiliary", 0.0))
            if stage.clip_norm is not None:
                accelerator.clip_grad_norm_(of_loss(objective), stage.clip_norm)
            position.rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            position.step += 1
            for name, value in terms.items():
                position.sums[name] = position.sums.get(name, 0.0) + float(value.detach())
            self.progress.step(_in_words(position.means()))
            if time.monotonic() - kept > 60 * plan.checkpoint_minutes:
                position.seconds = time.monotonic() - began
                keep()
                kept = time.monotonic()
        looked = stage.validates(position.epoch + 1)
        found, bits = self.validate() if looked else ({}, None)
        line = {
            "stage": position.stage + 1,
            "epoch": position.epoch + 1,
            **{name: round(value, 6) for name, value in position.means().items()},
            "learning_rate": position.rate,
            **{f"val_{name}": value for name, value in found.items()},
            **({} if bits is None else {"val_bits": bits}),
        }
        position.lines.append(line)
        self._write_log(position)
        if self.main:
            self.progress.note(_epoch_in_words(line, time.monotonic() - began))
        score = found.get(METRICS[self.spec.task][0], -1.0)
        if looked and (stage.select == "last" or score > position.best.get("score", -1.0)):
            position.best = {
                "score": score,
                "scores": found,
                "bits": bits,
                "epoch": position.epoch + 1,
                "model": {
                    name: one.detach().cpu().clone()
                    for name, one in self.student.state_dict().items()
                },
            }

    def _end_stage(self, position: _Position, stage: Stage) -> None:
        """Take the weights that are kept, and let the tables reach as far as the densities do."""
        self.student.load_state_dict(position.best["model"])
        if not is_frozen("bottleneck", stage):
            self.student.bottleneck.update_quantiles()
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

    @torch.no_grad()
    def validate(self) -> tuple[Scores, float | None]:
        """Score the student on the validation images without coding, and count its bits."""
        student, spec, accelerator = self.student.eval(), self.spec, self.accelerator
        results: list[Result] = []
        bits: list[float] = []
        share = self.validation.samples[accelerator.process_index :: accelerator.num_processes]
        dataset = EvaluationImages(share, spec)
        batch = 1 if spec.task == "object-detection" else _EVALUATION_BATCH
        loader = evaluation_loader(dataset, batch, self.plan.workers)
        for images, places in self.progress.track(loader, "validation", total=len(loader)):
            check_stopped()
            _check_finite(images)
            samples = [share[place] for place in places]
            latent = student.encoder(images.to(accelerator.device))
            latent_hat, likelihoods = student.bottleneck.forward_with_likelihoods(latent)
            results += results_of(spec, student.decoder(latent_hat), samples)
            if likelihoods:
                bits.append(-sum(float(one.log2().sum()) for one in likelihoods))
        if accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            results, bits = gather_object(results), gather_object(bits)
        found = scores(spec.task, results, spec.num_classes)
        return found, sum(bits) / len(results) if bits else None

    def _write_log(self, position: _Position) -> None:
        if self.main:
            text = "".join(json.dumps(line) + "\n" for line in position.lines)
            _write_text(self.plan.run / LOG_NAME, text)

    def _finish(self, position: _Position) -> Path:
        plan, folder = self.plan, self.plan.run / MODEL_NAME
        student = self.student.cpu().eval()
        student.update()
        teacher = self.teacher
        student.training_record = TrainingRecord(
            recipe=plan.name,
            command=plan.command,
            teacher=f"{teacher.spec.name} {teacher.cpu().digest()[:4].hex()}" if teacher else "",
            seed=plan.seed,
            stages=[StageRecord.model_validate(one) for one in position.done],
            training_images=len(self.training.samples),
            validation_images=len(self.validation.samples),
            data_sha256=self.data_sha256,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            seconds=round(position.seconds, 1),
            machine=_machine(self.accelerator),
            versions={"splitzoo": __version__, **{name: version(name) for name in _VERSIONS}},
        )
        if self.main:
            # In place of one that was saved before the recipe gained a stage.
            made = save(student, plan.run / f".{MODEL_NAME}")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        self.accelerator.wait_for_everyone()
        return folder


def _has_only_begun(run: Path) -> bool:
    """Say whether a run was stopped before its first checkpoint, and holds nothing else."""
    names = {path.name for path in run.iterdir()} if run.is_dir() else set()
    return bool(names) and names <= {RECIPE_NAME, LOG_NAME}


def _accelerator(mixed_precision: str) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise DependencyError(
            "Training needs accelerate, which is not installed.",
            next_step="pip install 'splitzoo[train]'",
        ) from error
    # Of the ways to compute a convolution, always the same: a run goes on as it would have gone.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    try:
        return Accelerator(
            mixed_precision=mixed_precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise TrainingError(
            f"{mixed_precision} cannot be used here: {error}",
            next_step="Leave --mixed-precision out.",
        ) from error


def _in_words(means: dict[str, Any]) -> str:
    words = [f"loss {means['loss']:.4g}"]
    words += [f"{means['bits'] / 8:,.0f} bytes"] if "bits" in means else []
    words += [f"{means['right']:.1%} right"] if "right" in means else []
    return ", ".join(words)


def _epoch_in_words(line: dict[str, Any], seconds: float) -> str:
    scores = [
        f"{name.removeprefix('val_')} {value:.2%}"
        for name, value in line.items()
        if name.startswith("val_") and name != "val_bits"
    ]
    if "val_bits" in line:
        scores.append(f"{line['val_bits'] / 8:,.0f} bytes by the density")
    validation = f"; validation: {', '.join(scores)}" * bool(scores)
    return (
        f"stage {line['stage']} epoch {line['epoch']}: {_in_words(line)}{validation}; "
        f"{seconds:.0f} s"
    )


def _check_finite(images: Any) -> None:
    if isinstance(images, ImageError):
        raise images


def _seed_step(seed: int, position: _Position, process: int) -> None:
    words = f"{seed} {position.stage} {position.epoch} {position.step} {process}"
    number = hashlib.sha256(words.encode()).digest()
    torch.manual_seed(int.from_bytes(number[:8], "little") >> 1)


def _to(targets: Any, device: torch.device) -> Any:
    if isinstance(targets, list):
        return [{name: value.to(device) for name, value in one.items()} for one in targets]
    return targets.to(device)


def _machine(accelerator: Any) -> str:
    found = machine()
    where = accelerator.device.type
    return f"{found['cpu']}, {found['cores']} cores" + (
        f", {accelerator.num_processes} × {torch.cuda.get_device_name()}" if where == "cuda" else ""
    )


def _write_text(path: Path, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
