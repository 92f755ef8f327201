"""A training run: stages, epochs and steps, and at the end a model folder.

Every random number of a step comes from a seed that names the step, so an interrupted run continues
bit for bit as it would have gone, on the same machine.
"""

import datetime
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from splitrun.errors import DatasetError, DependencyError, ImageError, TrainingError
from splitrun.files import check_free, new_file
from splitrun.image_files import Unread, count_unread
from splitrun.machine import machine
from splitrun.signals import check_stopped, keeping

from ... import __version__
from ...progress import SILENT, Progress
from ..catalog import save
from ..datasets import Dataset, digest, labels_of, read_dataset, read_unlabelled
from ..metrics import METRICS, Result, Scores, scores
from ..outputs import results_of
from .checkpoint import START, load_checkpoint, other_run, save_checkpoint
from .data import BatchOrder, EvaluationImages, Loader, TrainingImages
from .inventory import NAME as INVENTORY_NAME
from .inventory import differences, take_inventory, write_inventory
from .objective import LossValues, Objective
from .plan import LOG_NAME, MODEL_NAME, RECIPE_NAME, TRACKERS_NAME, Plan
from .readable import find_unreadable
from .recipe import Stage
from .record import StageRecord, TrainingRecord
from .student import build_student, kept_tail, load_teacher, with_classes_of_teacher
from .trackers import Tracked, tracking
from .trained_parts import build_optimizer, clipped_parameters, freeze, is_frozen, set_modes

_EVALUATION_BATCH = 16
_MOST_LISTED = 20
_VERSIONS = ("torch", "torchvision", "timm", "compressai", "accelerate", "numpy", "pillow")


def train(plan: Plan, progress: Progress = SILENT, *, resume: bool = False) -> Path:
    """Train a model and save it in the run's folder.

    Args:
        plan: What to train, how and where.
        progress: Shows how the run goes on.
        resume: Whether to continue from the checkpoint in the run's folder.

    Returns:
        The model's folder, which ``zoo.load`` takes.

    Raises:
        DependencyError: accelerate is not installed.
        DatasetError: The data set is missing, has another form, or images that cannot be read.
        RecipeError: The recipe cannot be followed for this model.
        TrainingError: The run cannot continue, its data set has changed, or its loss is no longer a
            number.
        OutputError: The folder is taken or cannot be written.
    """
    return _Run(plan, progress).train(resume)


@dataclass
class _Position:
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


class _Run:
    """One run: its data, its networks and its position."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.accelerator = _accelerator(plan)
        self.main = self.accelerator.is_main_process
        self.processes = self.accelerator.num_processes
        plan.check_dataset()
        self.spec = plan.spec
        unlabelled = plan.recipe.dataset == "unlabelled"
        if unlabelled and not self.spec.dataset:
            self.spec = with_classes_of_teacher(self.spec, plan.recipe, plan.teacher)
        # A model without a data set of its own gets the classes of the data.
        known = tuple(labels_of(self.spec)) if self.spec.dataset else ()
        if unlabelled:
            self.training = replace(read_unlabelled(plan.data), labels=known)
        else:
            self.training = read_dataset(self.spec.task, plan.data, "train", known)
        labels = self.training.labels
        if not self.spec.dataset:
            classes = {"dataset": "custom", "num_classes": len(labels), "labels": labels}
            self.spec = self.spec.model_copy(update=classes)
        if plan.recipe.held_out:
            self.training, self.validation = _parted(self.training, plan.recipe.held_out)
        else:
            self.validation = read_dataset(self.spec.task, plan.data, "val", known or labels)
        self.unreadable = self._unreadable()
        self.unread = [
            *(*self.training.unread, *self.validation.unread),
            *(Unread(path.name, why) for path, why in self.unreadable.items()),
        ]
        self.training, self.validation = map(self._readable, (self.training, self.validation))
        plan.check_batches(len(self.training.samples), self.processes)
        # This process's share of the validation images.
        scored = self.validation.samples[self.accelerator.process_index :: self.processes]
        batch_size = 1 if self.spec.task == "object-detection" else _EVALUATION_BATCH
        images = EvaluationImages(scored, self.spec)
        self.scored = scored, Loader(images, plan.workers, batch_size=batch_size)
        second = "train" if plan.recipe.held_out else "val"
        self.inventory = take_inventory((("train", self.training), (second, self.validation)))
        self.data_sha256 = digest(self.training.samples, self.validation.samples)
        self.position = _Position()

    def _unreadable(self) -> dict[Path, str]:
        """Find the images that cannot be read; the first process looks for all.

        Raises:
            DatasetError: There are some, and the plan does not skip them.
        """
        for line in dict.fromkeys((*self.training.left_out(), *self.validation.left_out())):
            self.progress.note(line)
        samples = (*self.training.samples, *self.validation.samples)
        found = find_unreadable(samples, self.spec, self.progress) if self.main else {}
        if self.processes > 1:
            from accelerate.utils import broadcast_object_list

            (found,) = broadcast_object_list([found])
        if found:
            listed = [f"  {path}: {why}" for path, why in list(found.items())[:_MOST_LISTED]]
            listed += [f"  and {len(found) - _MOST_LISTED} more"] * (len(found) > _MOST_LISTED)
            counted = f"{len(found):,} of {len(samples):,} images cannot be read"
            by_reason = count_unread(Unread(path.name, why) for path, why in found.items())
            counted += f" ({'; '.join(map(str, by_reason))})"
            if not self.plan.skip_unreadable:
                raise DatasetError(
                    "\n".join([f"{counted}:", *listed]),
                    next_step="Mend or remove them, or leave them out: --skip-unreadable.",
                )
            self.progress.note("\n".join([f"{counted}, and are left out:", *listed]))
        return found

    def _readable(self, dataset: Dataset) -> Dataset:
        samples = [s for s in dataset.samples if s.path not in self.unreadable]
        if not samples:
            raise DatasetError("No image of train or of val can be read.")
        return replace(dataset, samples=samples)

    def train(self, resume: bool) -> Path:
        plan = self.plan
        only_begun = _has_only_begun(plan.run)
        resume = resume and not only_begun
        if not resume and self.main and not only_begun:
            advice = "Continue the run that is there with --resume, or name another with -o."
            check_free(plan.run, advice=advice)
        self.accelerator.wait_for_everyone()
        if plan.recipe.teacher:
            self.progress.step("loading the teacher")
        self.teacher = load_teacher(plan.recipe, plan.teacher)
        self.student = build_student(
            plan.recipe, self.spec, self.teacher, seed=plan.seed, start=plan.start
        )
        self.identity = self._identity()
        for network in (self.student, self.teacher):
            if network is not None:
                network.to(self.accelerator.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if plan.recipe.dataset == "unlabelled":
            self._label()
        state = self._resume() if resume else None
        model = plan.run / MODEL_NAME
        stages = plan.recipe.stages
        last = (self.position.stage, self.position.epoch) == (len(stages) - 1, stages[-1].epochs)
        if last and model.is_dir():
            return model
        if self.main:
            plan.run.mkdir(parents=True, exist_ok=True)
            _write_text(plan.run / RECIPE_NAME, plan.recipe.to_yaml(self.spec.name))
            write_inventory(plan.run, self.inventory)
        self.tracked = Tracked(self.accelerator, plan)
        self._write_log()
        self.progress.note(f"Training {self.spec.name}. If interrupted, continue with --resume.")
        with keeping(f"The run in {plan.run} is kept: --resume continues it."):
            while self.position.stage < len(stages):
                _StageRun(self, stages[self.position.stage], state).train()
                state = None
        self._finish(model)
        return model

    @torch.no_grad()
    def _label(self) -> None:
        """Give the validation images the classes that the teacher sees."""
        samples, loader = self.scored
        assert self.teacher is not None  # as the recipe was checked
        tail = self.teacher.decoder.get_submodule("tail")
        labelled: list[Any] = []
        for images, indexes in self.progress.track(loader, "teacher's answers", total=len(loader)):
            check_stopped()
            _check_read(images)
            answers = tail(images.to(self.accelerator.device)).argmax(1).tolist()
            labelled += [
                replace(samples[index], target=answer)
                for index, answer in zip(indexes, answers, strict=True)
            ]
        self.scored = labelled, loader

    def _resume(self) -> dict[str, Any]:
        state = load_checkpoint(self.plan.run, self.identity)
        self.position = position = _Position(**state["position"])
        if state["stages"] != self.stages_so_far():
            raise other_run(self.plan.run, "recipe")
        changes = differences(self.plan.run, self.inventory)
        if changes and not self.plan.accept_changed_data:
            raise TrainingError(
                f"The data set has changed since {self.plan.run} began: {changes}.",
                next_step="Put it back as it was, or continue with it as it is: --resume "
                "--accept-changed-data.",
            )
        if changes:
            where = f"stage {position.stage + 1}, epoch {position.epoch + 1}"
            position.data_changes.append(f"{where}: {changes}")
            self.progress.note(f"The data set has changed: {changes}.")
        self.student.load_state_dict(state["model"])
        return state

    def _identity(self) -> dict[str, str]:
        """Return what decides how the run goes, by name, but for later stages and the images."""
        plan = self.plan
        return {
            "recipe": plan.recipe.model_dump_json(exclude={"stages"}),
            "list of classes": " ".join(map(repr, self.spec.labels)),
            "model": self.spec.model_dump_json(exclude={"labels", "num_classes"}),
            "teacher": self.teacher.digest().hex() if self.teacher else "",
            "seed": str(plan.seed),
            "number of processes": str(self.processes),
            "mixed precision": plan.mixed_precision,
            START: self.student.digest().hex(),
        }

    def stages_so_far(self) -> list[str]:
        """Return the recipe's stages up to this one: later ones may be added to a finished run."""
        stages = self.plan.recipe.stages[: self.position.stage + 1]
        return [stage.model_dump_json() for stage in stages]

    @torch.no_grad()
    def validate(self) -> tuple[Scores, float | None]:
        """Score the student on the validation images, without coding, and count its bits."""
        student, spec = self.student.eval(), self.spec
        results: list[Result] = []
        bits: list[float] = []
        samples, loader = self.scored
        for images, indexes in self.progress.track(loader, "validation", total=len(loader)):
            check_stopped()
            _check_read(images)
            latent = student.encoder(images.to(self.accelerator.device))
            latent_hat, likelihoods = student.bottleneck.forward_with_likelihoods(latent)
            outputs = student.decoder(latent_hat)
            results += results_of(spec, outputs, [samples[index] for index in indexes])
            if likelihoods:
                bits.append(-sum(float(likelihood.log2().sum()) for likelihood in likelihoods))
        if self.processes > 1:
            from accelerate.utils import gather_object

            results, bits = gather_object(results), gather_object(bits)
        found = scores(spec.task, results, spec.num_classes)
        return found, sum(bits) / len(results) if bits else None

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Write a line to the log, and show it."""
        self.position.lines.append(line)
        self._write_log()
        if self.main:
            self.progress.note(_epoch_summary(line))
        self.tracked.epoch(self.position.steps, line)

    def _write_log(self) -> None:
        if self.main:
            text = "".join(json.dumps(line) + "\n" for line in self.position.lines)
            _write_text(self.plan.run / LOG_NAME, text)

    def _finish(self, folder: Path) -> None:
        """Save the student with its tables and its training record."""
        plan, teacher = self.plan, self.teacher
        student = self.student.cpu().eval()
        student.update()
        student.tail_of = kept_tail(plan.recipe, teacher)
        student.training_record = TrainingRecord(
            recipe=plan.name,
            command=plan.command,
            teacher=f"{teacher.spec.name} {teacher.cpu().digest()[:4].hex()}" if teacher else "",
            seed=plan.seed,
            stages=[StageRecord.model_validate(stage) for stage in self.position.done],
            training_images=len(self.training.samples),
            validation_images=len(self.validation.samples),
            held_out=bool(plan.recipe.held_out),
            unread=tuple(count_unread(self.unread)),
            data_changes=self.position.data_changes,
            data_sha256=self.data_sha256,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            seconds=round(self.position.seconds, 1),
            machine=_machine(self.accelerator),
            versions={"splitzoo": __version__, **{name: version(name) for name in _VERSIONS}},
        )
        if self.main:
            # Replaces the model that was saved before the recipe gained a stage.
            saved = save(student, plan.run / f".{MODEL_NAME}")
            shutil.rmtree(folder, ignore_errors=True)
            saved.rename(folder)
        self.accelerator.wait_for_everyone()
        self.tracked.end()


class _StageRun:
    """One stage of a run: losses, optimiser, schedule and batches.

    Args:
        run: Run, at the position where the stage begins or continues.
        stage: Stage of the recipe.
        state: Checkpoint to continue from.
    """

    def __init__(self, run: _Run, stage: Stage, state: dict[str, Any] | None) -> None:
        self.run, self.stage, self.position = run, stage, run.position
        accelerator = run.accelerator
        freeze(run.student, stage)
        objective = Objective(run.student, run.teacher, stage, processes=run.processes)
        optimizer = build_optimizer(run.student, stage.optimizer)
        samples = run.training.samples
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
            _check_read(images)
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


def _parted(dataset: Dataset, held_out: float) -> tuple[Dataset, Dataset]:
    """Part images in two: those to train on, and those held out, whose names' digests are least."""

    def digest(sample: Any) -> bytes:
        return hashlib.sha256(sample.name.encode()).digest()

    count = max(1, round(held_out * len(dataset.samples)))
    chosen = {sample.name for sample in sorted(dataset.samples, key=digest)[:count]}
    parts: tuple[list[Any], list[Any]] = ([], [])
    for sample in dataset.samples:
        parts[sample.name in chosen].append(sample)
    if not all(parts):
        raise DatasetError(f"Of {len(dataset.samples)} images, none can be held out: give more.")
    # What is not read is told once.
    return replace(dataset, samples=parts[0]), Dataset(parts[1], dataset.labels)


def _has_only_begun(run: Path) -> bool:
    """Return whether a run stopped before its first checkpoint; its folder may be written anew."""
    names = {path.name for path in run.iterdir()} if run.is_dir() else set()
    return bool(names) and names <= {RECIPE_NAME, LOG_NAME, INVENTORY_NAME, TRACKERS_NAME}


def _accelerator(plan: Plan) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise DependencyError(
            "Training needs accelerate, which is not installed.",
            next_step="pip install 'splitzoo[train]'",
        ) from error
    # Always the same convolution algorithm, so that a run continues as it would have gone.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    try:
        return Accelerator(
            mixed_precision=plan.mixed_precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
            **tracking(plan),
        )
    except ValueError as error:
        raise TrainingError(
            f"{plan.mixed_precision} cannot be used here: {error}",
            next_step="Leave --mixed-precision out.",
        ) from error


def _summary(means: dict[str, Any]) -> str:
    words = [f"loss {means['loss']:.4g}"]
    words += [f"{means['bits'] / 8:,.0f} bytes"] if "bits" in means else []
    words += [f"{means['correct']:.1%} correct"] if "correct" in means else []
    return ", ".join(words)


def _epoch_summary(line: dict[str, Any]) -> str:
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


def _check_read(images: Any) -> None:
    if isinstance(images, ImageError):
        raise images


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [{name: tensor.to(device) for name, tensor in item.items()} for item in value]
    return value.to(device)


def _machine(accelerator: Any) -> str:
    cpu = machine()
    found = f"{cpu['cpu']}, {cpu['cores']} cores"
    if accelerator.device.type == "cuda":
        found += f", {accelerator.num_processes} × {torch.cuda.get_device_name()}"
    return found


def _write_text(path: Path, text: str) -> None:
    with new_file(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
