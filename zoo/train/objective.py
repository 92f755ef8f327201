"""What a stage of training lowers: the losses of a student, some of them beside its teacher.

::

    image ─┬─► encoder ─► coder (noise, bits) ─► g_s ─► tail ─► answer        student
           │                                      │  features  │ answer
           └────────────────► tail of the whole network ─► answer             teacher
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitrun.errors import RecipeError

from ..backbones import find_backbone
from ..backbones.cut import channels_last
from ..metrics import UNLABELLED
from ..spec import ModelSpec
from ..split_model import SplitModel
from ..tasks.detection import DetectionTail
from ..tasks.segmentation import SegmentationTail
from .recipe import Distillation, FeatureLoss, RateLoss, Stage, TaskLoss

Terms = dict[str, Tensor]


class Objective(nn.Module):
    """The losses of one stage, as a module that data-parallel training can wrap.

    Args:
        student: To be trained.
        teacher: Of the whole network, in evaluation mode; None where no loss compares with one.
        stage: With the losses.
        processes: That train together. Their gradients are averaged, so what is summed over a batch
            counts so many times in each.

    Raises:
        RecipeError: The recipe asks for what this model does not have.
    """

    def __init__(
        self,
        student: SplitModel,
        teacher: SplitModel | None,
        stage: Stage,
        *,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.student = student
        self.stage = stage
        self._processes = processes
        taught = [one for one in stage.losses if isinstance(one, FeatureLoss | Distillation)]
        # In a list, since it is no part of what is trained.
        self._teacher = [teacher] if teacher is not None and taught else []
        self._layers = _feature_layers(student.spec, stage)
        if taught:
            _check_teacher(student.spec, stage)
            self._student_places()
        if any(isinstance(one, RateLoss) for one in stage.losses):
            _check_rate(student.spec, stage)

    def forward(self, images: Tensor, targets: Any) -> Terms:
        """Compute the losses of a batch.

        Args:
            images: (N, 3, H, W) float32, as the student takes them.
            targets: As ``training_loader`` gives them.

        Returns:
            ``loss``, which is lowered, and what it is made of, by kind and without weights;
            ``auxiliary``, lowered beside it, of the quantiles alone; ``bits`` per image where
            there is a density; ``right``, the share of right answers, for classifiers. All are
            scalars.
        """
        student = self.student
        with _captured(student.decoder, self._student_places()) as features:
            latent = student.encoder(images)
            with torch.autocast(images.device.type, enabled=False):
                latent_hat, likelihoods = student.bottleneck.forward_with_likelihoods(
                    latent.float()
                )
            task, answer = self._answer(latent_hat, targets)
        terms = dict(task)
        taught, theirs = self._teach(images)
        loss = images.new_zeros(())
        for term in self.stage.losses:
            if isinstance(term, TaskLoss):
                value = self._task_loss(term, task, answer, targets)
            elif isinstance(term, FeatureLoss):
                value = self._feature_loss(term, features, taught)
            elif isinstance(term, Distillation):
                value = _distillation(term, answer, theirs, targets)
            else:
                value = _bits(likelihoods) * self._share(term.reduction, len(images))
            weight = student.spec.beta if term.weight is None else term.weight
            terms[term.kind] = value
            loss = loss + (0.0 if weight is None else weight) * value
        if likelihoods:
            terms["bits"] = _bits(likelihoods).detach() / len(images)
        if student.spec.task == "image-classification":
            terms["right"] = (answer.detach().argmax(1) == targets).float().mean()
        if student.bottleneck.training and (auxiliary := student.bottleneck.aux_loss()) is not None:
            terms["auxiliary"] = auxiliary
        return terms | {"loss": loss}

    def _answer(self, latent_hat: Tensor, targets: Any) -> tuple[Terms, Any]:
        """Run the edge's half; a detector gives its losses, the others their logits."""
        decoder = self.student.decoder
        tail = decoder.get_submodule("tail")
        wants_task = any(isinstance(one, TaskLoss) for one in self.stage.losses)
        for name, part in decoder.named_children():
            if name != "tail":
                latent_hat = part(latent_hat)
        if isinstance(tail, DetectionTail):
            if not wants_task:  # features alone
                return {}, tail.dense(latent_hat)
            areas = [tuple(one["area"].tolist()) for one in targets]
            return tail.losses(latent_hat, targets, areas), None
        if isinstance(tail, SegmentationTail):
            return {}, tail.forward_with_aux(latent_hat)
        return {}, tail(latent_hat)

    @torch.no_grad()
    def _teach(self, images: Tensor) -> tuple[dict[str, Tensor], Any]:
        if not self._teacher:
            return {}, None
        tail = self._teacher[0].decoder.get_submodule("tail")
        places = {layer: tail.get_submodule(_inside(tail, layer)) for layer in self._layers}
        with _captured(tail, places) as features:
            answer = tail.dense(images) if isinstance(tail, DetectionTail) else tail(images)
        return features, answer

    def _student_places(self) -> dict[str, nn.Module]:
        decoder, spec = self.student.decoder, self.student.spec
        tail = decoder.get_submodule("tail")
        try:
            return {
                layer: decoder.get_submodule("g_s")
                if layer == spec.cut
                else tail.get_submodule(_inside(tail, layer))
                for layer in self._layers
            }
        except AttributeError as error:
            raise RecipeError(
                f"{spec.name} has no such features to compare: {error}.",
                next_step="Name layers of the backbone behind the cut; those at the cut only where "
                "a decoder gives them.",
            ) from error

    def _feature_loss(
        self, term: FeatureLoss, ours: dict[str, Tensor], theirs: dict[str, Tensor]
    ) -> Tensor:
        total = torch.zeros((), device=next(iter(ours.values())).device)
        tail = self._teacher[0].decoder.get_submodule("tail")
        for layer in term.layers or self._layers:
            given, wanted = ours[layer].float(), theirs[layer].float()
            if layer == self.student.spec.cut and channels_last(tail):
                wanted = wanted.permute(0, 3, 1, 2)
            if given.shape != wanted.shape:
                raise RecipeError(
                    f"The student's features in place of {layer} are {tuple(given.shape[1:])}, "
                    f"the teacher's {tuple(wanted.shape[1:])}.",
                    next_step="Is the teacher the same network, and its input of the same size?",
                )
            total = total + functional.mse_loss(given, wanted, reduction="sum")
        return total * self._share(term.reduction, len(next(iter(ours.values()))))

    def _share(self, reduction: str, images: int) -> float:
        return self._processes if reduction == "sum" else 1 / images

    def _task_loss(self, term: TaskLoss, task: Terms, answer: Any, targets: Any) -> Tensor:
        if task:
            return torch.stack(list(task.values())).sum()
        if isinstance(answer, tuple):
            out, auxiliary = (
                functional.cross_entropy(one, targets, ignore_index=UNLABELLED) for one in answer
            )
            return out + term.auxiliary * auxiliary
        return functional.cross_entropy(answer, targets, label_smoothing=term.label_smoothing)


def _distillation(term: Distillation, answer: Tensor, theirs: Tensor, targets: Tensor) -> Tensor:
    soft = functional.kl_div(
        functional.log_softmax(answer / term.temperature, 1),
        functional.log_softmax(theirs / term.temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(answer, targets)
    return term.alpha * hard + (1 - term.alpha) * term.temperature**2 * soft


def _bits(likelihoods: tuple[Tensor, ...]) -> Tensor:
    """Return the bits of all images: −log2 of the probabilities, summed."""
    return -torch.stack([one.log2().sum() for one in likelihoods]).sum()


def _feature_layers(spec: ModelSpec, stage: Stage) -> tuple[str, ...]:
    """Return the layers whose features are compared, those from the cut on by default."""
    found: dict[str, None] = {}
    for term in stage.losses:
        if not isinstance(term, FeatureLoss):
            continue
        layers = term.layers
        if not layers:
            stages = [one.layer for one in find_backbone(spec.backbone).stages]
            if spec.cut not in stages:
                raise RecipeError(
                    f"The stages of {spec.backbone} do not begin with {spec.cut}: name the layers."
                )
            layers = tuple(stages[stages.index(spec.cut) :])
        found |= dict.fromkeys(layers)
    return tuple(found)


def _check_teacher(spec: ModelSpec, stage: Stage) -> None:
    if spec.cut is None:
        raise RecipeError(f"{spec.name} is a whole network: it has no teacher.")
    distilled = any(isinstance(one, Distillation) for one in stage.losses)
    if distilled and spec.task != "image-classification":
        raise RecipeError(f"Distillation compares answers of classifiers; {spec.name} is none.")


def _check_rate(spec: ModelSpec, stage: Stage) -> None:
    density = ("factorized-prior", "scale-hyperprior", "mean-scale-hyperprior")
    if spec.bottleneck.kind not in (*density, "entropy-bottleneck", "neural-input-codec"):
        raise RecipeError(f"A {spec.bottleneck.kind} bottleneck has no density, so no rate loss.")
    if spec.beta is None and any(
        isinstance(one, RateLoss) and one.weight is None for one in stage.losses
    ):
        raise RecipeError(
            f"{spec.name} has no β to weigh its rate with.",
            next_step="Give the rate loss a weight, or the model a beta.",
        )


def _inside(tail: nn.Module, layer: str) -> str:
    """Return the path of a backbone's layer in a tail: dense ones hold it in ``body``."""
    return layer if not hasattr(tail, "body") else f"body.{layer}"


@contextlib.contextmanager
def _captured(module: nn.Module, places: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep what some modules give while the block runs."""
    kept: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
            kept[name] = output

        return hook

    hooks = [place.register_forward_hook(keep(name)) for name, place in places.items()]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
