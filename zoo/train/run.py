"""A training run: its networks, its stages one after the other, and at the end a model folder.

Every random number of a step comes from a seed that names the step, so an interrupted run continues
bit for bit as it would have gone, on the same machine.
"""

import datetime
import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from splitrun.errors import DependencyError, TrainingError
from splitrun.files import check_free, new_file
from splitrun.image_files import count_unread
from splitrun.machine import machine
from splitrun.signals import check_stopped, keeping

from ... import __version__
from ...progress import SILENT, Progress
from ..catalog import save
from ..metrics import Result, Scores, scores
from ..outputs import results_of
from .checkpoint import START, load_checkpoint, other_run
from .components import begin_with_components, choose_samples
from .data import EvaluationImages, Loader, check_read
from .inventory import NAME as INVENTORY_NAME
from .inventory import differences, write_inventory
from .plan import LOG_NAME, MODEL_NAME, RECIPE_NAME, TRACKERS_NAME, Plan
from .record import StageRecord, TrainingRecord
from .run_data import read_run_data
from .stage_run import Position, StageRun, epoch_summary
from .student import build_student, kept_tail, load_teacher
from .trackers import Tracked, tracking

_EVALUATION_BATCH = 16
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
    return Run(plan, progress).train(resume)


class Run:
    """One run: its data, its networks and its position."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.plan, self.progress = plan, progress
        self.accelerator = _accelerator(plan)
        self.main = self.accelerator.is_main_process
        self.processes = self.accelerator.num_processes
        self.data = data = read_run_data(plan, self.accelerator, progress)
        self.spec = data.spec
        # This process's share of the validation images.
        scored = data.validation.samples[self.accelerator.process_index :: self.processes]
        batch_size = 1 if self.spec.task == "object-detection" else _EVALUATION_BATCH
        images = EvaluationImages(scored, self.spec)
        self.scored = scored, Loader(images, plan.workers, batch_size=batch_size)
        self.position = Position()

    def train(self, resume: bool) -> Path:
        """Run all stages that are left; see :func:`train`."""
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
        if (components := plan.recipe.components) and not resume:
            self.progress.step(f"principal components of {components} images")
            chosen = choose_samples(self.data.training.samples, components, plan.seed)
            begin_with_components(self.student, chosen, plan.seed)
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
            write_inventory(plan.run, self.data.inventory)
        self.tracked = Tracked(self.accelerator, plan)
        self._write_log()
        self.progress.note(f"Training {self.spec.name}. If interrupted, continue with --resume.")
        with keeping(f"The run in {plan.run} is kept: --resume continues it."):
            while self.position.stage < len(stages):
                StageRun(self, stages[self.position.stage], state).train()
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
            check_read(images)
            answers = tail(images.to(self.accelerator.device)).argmax(1).tolist()
            labelled += [
                replace(samples[index], target=answer)
                for index, answer in zip(indexes, answers, strict=True)
            ]
        self.scored = labelled, loader

    def _resume(self) -> dict[str, Any]:
        state = load_checkpoint(self.plan.run, self.identity)
        self.position = position = Position(**state["position"])
        if state["stages"] != self.stages_so_far():
            raise other_run(self.plan.run, "recipe")
        changes = differences(self.plan.run, self.data.inventory)
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
            check_read(images)
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
            self.progress.note(epoch_summary(line))
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
            training_images=len(self.data.training.samples),
            validation_images=len(self.data.validation.samples),
            held_out=bool(plan.recipe.held_out),
            unread=tuple(count_unread(self.data.unread)),
            data_changes=self.position.data_changes,
            data_sha256=self.data.sha256,
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


def _machine(accelerator: Any) -> str:
    cpu = machine()
    found = f"{cpu['cpu']}, {cpu['cores']} cores"
    if accelerator.device.type == "cuda":
        found += f", {accelerator.num_processes} × {torch.cuda.get_device_name()}"
    return found


def _write_text(path: Path, text: str) -> None:
    with new_file(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
