"""A training run: stages, epochs, steps, and a model folder at the end.

Every random number of a step is drawn from a seed that names the step, so a run that was
interrupted goes on bit for bit as it would have gone, on the same machine.
"""

import copy
import datetime
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ... import __version__
from ...errors import DependencyError, RecipeError, TrainingError
from ...files import new_file, refuse_taken
from ...machine import machine
from ..catalog import save
from ..datasets import Dataset, Sample, digest, read_dataset
from ..labels import labels_of
from ..metrics import METRICS, Scores, scores
from ..outputs import results_of
from ..spec import ModelSpec
from ..split_model import SplitModel
from .checkpoint import load_checkpoint, save_checkpoint
from .data import Order, TrainingPictures, training_loader
from .objective import Objective
from .recipe import Optimizer, Recipe, Stage
from .record import StageRecord, TrainingRecord
from .student import build_student, load_teacher

LOG_NAME = "log.jsonl"
RECIPE_NAME = "recipe.yaml"
MODEL_NAME = "model"
_VERSIONS = ("torch", "torchvision", "timm", "compressai", "accelerate", "numpy", "pillow")


class Watch(Protocol):
    """Shows how a run goes on."""

    def steps(
        self, stage: str, total: int, done: int
    ) -> AbstractContextManager[Callable[[dict[str, float]], None]]:
        """Begin an epoch; the function given is called with the means so far after each step."""
        ...

    def epoch(self, line: dict[str, Any]) -> None:
        """Show the line that is written to the log."""
        ...

    def pictures(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        """Go through validation pictures."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is to be trained, and how.

    Attributes:
        name: Of the recipe.
        recipe: With its stages as they are to be run.
        spec: Of the model.
        data: Folder of the data set.
        run: Folder of the run.
        teacher: A name or folder in place of the recipe's.
        start: Likewise, of ``recipe.start.model``.
        seed: Of weights, order, variation and noise.
        workers: Processes that read pictures, beside each training process.
        mixed_precision: ``no``, ``fp16`` or ``bf16``.
        checkpoint_minutes: At most so long between checkpoints within an epoch.
        command: That was given, for the record.
    """

    name: str
    recipe: Recipe
    spec: ModelSpec
    data: Path
    run: Path
    teacher: str = ""
    start: str = ""
    seed: int = 0
    workers: int = 1
    mixed_precision: str = "no"
    checkpoint_minutes: float = 10.0
    command: str = ""


def with_epochs(recipe: Recipe, epochs: Sequence[int]) -> Recipe:
    """Return a recipe whose stages have other numbers of epochs.

    Args:
        recipe: To change.
        epochs: One number for all stages, or one for each.

    Raises:
        RecipeError: There are more or fewer than stages.
    """
    if not epochs:
        return recipe
    numbers = list(epochs) * len(recipe.stages) if len(epochs) == 1 else list(epochs)
    if len(numbers) != len(recipe.stages):
        raise RecipeError(
            f"{len(numbers)} numbers of epochs for {len(recipe.stages)} stages.",
            next_step="Give --epochs once for all stages, or once for each.",
        )
    stages = tuple(
        stage.for_epochs(number) for stage, number in zip(recipe.stages, numbers, strict=True)
    )
    return recipe.model_copy(update={"stages": stages})


def train(plan: Plan, watch: Watch, *, resume: bool = False) -> Path:
    """Train a model and save it in the run's folder.

    Args:
        plan: What, how and where.
        watch: Shows how it goes on.
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
    return _Run(plan, watch).train(resume)


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


class _Run:
    def __init__(self, plan: Plan, watch: Watch) -> None:
        self.plan, self.watch = plan, watch
        self.accelerator = _accelerator(plan.mixed_precision)
        self.main = self.accelerator.is_main_process
        known = _labels(plan.spec)
        self.training = read_dataset(plan.spec.task, plan.data, "train", known)
        self.spec = _with_classes(plan.spec, self.training)
        self.validation = read_dataset(
            self.spec.task, plan.data, "val", known or self.training.labels
        )
        self.data_sha256 = digest(self.training.samples, self.validation.samples)

    def train(self, resume: bool) -> Path:
        plan = self.plan
        if not resume and self.main:
            refuse_taken(plan.run)
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
            self.student.load_state_dict(state["model"])
        elif self.main:
            plan.run.mkdir(parents=True, exist_ok=True)
            _write_text(plan.run / RECIPE_NAME, _recipe_text(plan.recipe, self.spec))
        self._write_log(position)
        while position.stage < len(plan.recipe.stages):
            self._stage(position, state)
            state = None
        return self._finish(position)

    def _identity(self) -> str:
        """Return a digest of all that decides how the run goes."""
        plan = self.plan
        words = [
            plan.recipe.model_dump_json(),
            self.spec.model_dump_json(),
            self.data_sha256,
            self.teacher.digest().hex() if self.teacher else "",
            self.student.digest().hex(),
            f"{plan.seed} {self.accelerator.num_processes} {plan.mixed_precision}",
        ]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _stage(self, position: _Position, state: dict[str, Any] | None) -> None:
        stage = self.plan.recipe.stages[position.stage]
        student = self.student
        _freeze(student, stage)
        objective = Objective(student, self.teacher, stage)
        optimizer = _optimizer(student, stage.optimizer)
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
        pictures = TrainingPictures(self.training.samples, self.spec, stage.augmentation)

        def keep() -> None:
            if self.main:
                save_checkpoint(
                    self.plan.run,
                    {
                        "identity": self.identity,
                        "position": copy.deepcopy(vars(position)),
                        "model": student.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "scaler": scaler.state_dict() if scaler is not None else {},
                    },
                )

        began = time.monotonic() - position.seconds
        while position.epoch < stage.epochs:
            self._epoch(position, stage, wrapped, optimizer, schedule, order, pictures, keep, began)
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
        pictures: TrainingPictures,
        keep: Callable[[], None],
        began: float,
    ) -> None:
        plan, accelerator = self.plan, self.accelerator
        _set_modes(self.student, stage)
        loader = training_loader(pictures, order, position.epoch, position.step, plan.workers)
        title = f"stage {position.stage + 1}, epoch {position.epoch + 1}/{stage.epochs}"
        kept = time.monotonic()
        with self.watch.steps(title, order.steps, position.step) as show:
            for images, targets in loader:
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
                    accelerator.clip_grad_norm_(_of_loss(objective), stage.clip_norm)
                rate = optimizer.param_groups[0]["lr"]
                optimizer.step()
                schedule.step()
                position.step += 1
                for name, value in terms.items():
                    position.sums[name] = position.sums.get(name, 0.0) + float(value.detach())
                means = {name: value / position.step for name, value in position.sums.items()}
                show(means)
                if time.monotonic() - kept > 60 * plan.checkpoint_minutes:
                    position.seconds = time.monotonic() - began
                    keep()
                    kept = time.monotonic()
        looked = stage.validates(position.epoch + 1)
        found, bits = self.validate() if looked else ({}, None)
        line = {
            "stage": position.stage + 1,
            "epoch": position.epoch + 1,
            **{name: round(value, 6) for name, value in means.items()},
            "learning_rate": rate,
            **{f"val_{name}": value for name, value in found.items()},
            **({} if bits is None else {"val_bits": bits}),
        }
        position.lines.append(line)
        self._write_log(position)
        if self.main:
            self.watch.epoch(line | {"seconds": round(time.monotonic() - began, 1)})
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
        """Take the weights that are kept, and put the densities' quantiles to their places."""
        self.student.load_state_dict(position.best["model"])
        if not _is_frozen("coder", stage):
            self.student.coder.settle()
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
        """Score the student on the validation pictures without coding, and count its bits."""
        student, spec, accelerator = self.student.eval(), self.spec, self.accelerator
        results: list[dict[str, Any]] = []
        bits: list[float] = []
        share = self.validation.samples[accelerator.process_index :: accelerator.num_processes]
        batch = 1 if spec.task == "object-detection" else 16
        loader = torch.utils.data.DataLoader(
            _Evaluation(share, spec),
            batch_size=batch,
            num_workers=self.plan.workers,
            multiprocessing_context="fork" if self.plan.workers else None,
        )
        shown = iter(self.watch.pictures(share))
        for number, images in enumerate(loader):
            samples = share[number * batch : (number + 1) * batch]
            images = images.to(accelerator.device)
            latent = student.encoder(images)
            latent_hat, likelihoods = student.coder.rated(latent)
            results += results_of(spec, student.decoder(latent_hat), samples)
            if likelihoods:
                bits.append(-sum(float(one.log2().sum()) for one in likelihoods))
            for _ in samples:
                next(shown, None)
        next(shown, None)
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
        student.make_tables()
        teacher = self.teacher
        student.training_record = TrainingRecord(
            recipe=plan.name,
            command=plan.command,
            teacher=f"{teacher.spec.name} {teacher.cpu().digest()[:4].hex()}" if teacher else "",
            seed=plan.seed,
            stages=[StageRecord.model_validate(one) for one in position.done],
            training_pictures=len(self.training.samples),
            validation_pictures=len(self.validation.samples),
            data_sha256=self.data_sha256,
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            seconds=round(position.seconds, 1),
            machine=_machine(self.accelerator),
            versions={"splitzoo": __version__, **{name: version(name) for name in _VERSIONS}},
        )
        if self.main:
            save(student, folder)
        self.accelerator.wait_for_everyone()
        return folder


class _Evaluation(torch.utils.data.Dataset):
    """Pictures as evaluation reads them: (3, H, W) float32."""

    def __init__(self, samples: Sequence[Sample], spec: ModelSpec) -> None:
        self._samples, self._preprocessing = samples, spec.preprocessing

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._preprocessing.load(self._samples[index].path)[0])


def _accelerator(mixed_precision: str) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise DependencyError(
            "Training needs accelerate, which is not installed.",
            next_step="pip install 'splitzoo[train]'",
        ) from error
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


def _labels(spec: ModelSpec) -> tuple[str, ...]:
    """Return the labels that a model must be trained with; none where the folder says them."""
    return tuple(labels_of(spec)) if spec.dataset else ()


def _with_classes(spec: ModelSpec, dataset: Dataset) -> ModelSpec:
    """Return the spec of a model that has the data set's classes, where it has none of its own."""
    if spec.dataset:
        return spec
    return spec.model_copy(
        update={
            "dataset": "custom",
            "num_classes": len(dataset.labels),
            "labels": dataset.labels,
        }
    )


def _is_frozen(name: str, stage: Stage) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in stage.frozen)


def _freeze(student: SplitModel, stage: Stage) -> None:
    for part in stage.frozen:
        try:
            student.get_submodule(part)
        except AttributeError as error:
            raise RecipeError(f"{part} is to be frozen, but {error}.") from error
    for name, one in student.named_parameters():
        one.requires_grad_(not _is_frozen(name, stage))


def _set_modes(student: SplitModel, stage: Stage) -> None:
    """Set training mode, and evaluation mode in the parts that are frozen."""
    student.train()
    for part in stage.frozen:
        student.get_submodule(part).eval()


def _optimizer(student: SplitModel, settings: Optimizer) -> torch.optim.Optimizer:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, one in student.named_parameters():
        if not one.requires_grad:
            continue
        rate = next(
            (rate for part, rate in settings.rates.items() if name.startswith(f"{part}.")),
            settings.learning_rate,
        )
        decays = settings.decay_all or one.ndim > 1
        groups.setdefault((rate, settings.weight_decay * decays), []).append(one)
    if not groups:
        raise RecipeError("All parts are frozen in this stage: there is nothing to train.")
    listed = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
    return kind(listed, lr=settings.learning_rate)


def _of_loss(objective: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the loss is of; those of the auxiliary one are quantiles."""
    named = objective.named_parameters()
    return [one for name, one in named if not name.endswith(".quantiles")]


def _seed_step(seed: int, position: _Position, process: int) -> None:
    words = f"{seed} {position.stage} {position.epoch} {position.step} {process}"
    number = hashlib.sha256(words.encode()).digest()
    torch.manual_seed(int.from_bytes(number[:8], "little") >> 1)


def _to(targets: Any, device: torch.device) -> Any:
    if isinstance(targets, list):
        return [{name: value.to(device) for name, value in one.items()} for one in targets]
    return targets.to(device)


def _recipe_text(recipe: Recipe, spec: ModelSpec) -> str:
    # Written as JSON first, so that YAML sees plain lists and words.
    data = json.loads(recipe.model_dump_json(exclude_defaults=True))
    data["models"] = [
        one for one in data["models"] if spec.name in (one, one["name"] if one != spec.name else "")
    ]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _machine(accelerator: Any) -> str:
    found = machine()
    where = accelerator.device.type
    return f"{found['cpu']}, {found['cores']} cores" + (
        f", {accelerator.num_processes} × {torch.cuda.get_device_name()}" if where == "cuda" else ""
    )


def _write_text(path: Path, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
