"""The losses of a training stage, computed from a student and, beside it, its teacher.

::

    image ─┬─► encoder ─► bottleneck (noise, bits) ─► g_s ─► tail ─► logits        student
           │                                           │ features │ logits
           └────────────────► tail of the whole network ─► logits                  teacher
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitrun.errors import RecipeError

from ..backbones.cut import channels_last, head
from ..backbones.table import find_backbone
from ..bottlenecks.integer_hyperprior import IntegerHyperprior
from ..bottlenecks.variable_rate import VariableRate
from ..metrics import UNLABELLED
from ..spec import ModelSpec
from ..split_model import SplitModel
from ..tasks.detection import DetectionTail
from ..tasks.segmentation import SegmentationTail
from .recipe import Distillation, FeatureLoss, RateLoss, Stage, TaskLoss
from .trained_parts import is_frozen

LossValues = dict[str, Tensor]
"""Scalars by name."""


class Objective(nn.Module):
    """The losses of one stage, as a module that data-parallel training can wrap.

    Args:
        student: Model to train.
        teacher: Whole network in evaluation mode; None if no loss compares with one.
        stage: Stage with the losses.
        processes: Number of processes that train together. Their gradients are averaged, so a sum
            over a batch is multiplied by it.

    Raises:
        RecipeError: The recipe asks for something that the model does not have.
    """

    def __init__(
        self, student: SplitModel, teacher: SplitModel | None, stage: Stage, *, processes: int = 1
    ) -> None:
        super().__init__()
        self.student = student
        self.stage = stage
        self._processes = processes
        spec, losses = student.spec, stage.losses
        taught = any(isinstance(loss, FeatureLoss | Distillation) for loss in losses)
        if taught and spec.cut is None:
            raise RecipeError(f"{spec.name} is a whole network: it has no teacher.")
        if spec.task != "image-classification" and any(
            isinstance(loss, Distillation) for loss in losses
        ):
            raise RecipeError(f"Distillation is for classifiers; {spec.name} is none.")
        _check_rate(student, stage)
        if isinstance(student.bottleneck, IntegerHyperprior):
            student.bottleneck.trains_integers = stage.integers
        elif stage.integers:
            raise RecipeError(
                f"{spec.name} has no hyperprior in integers to train with.",
                next_step="Leave integers out of the stage.",
            )
        student.bottleneck.trains_rounded = stage.rounded
        if stage.rounded and not student.bottleneck.can_train_rounded:
            raise RecipeError(
                f"The bottleneck of {spec.name} cannot train with rounded latents.",
                next_step="Leave rounded out of the stage.",
            )
        # In a list, since it is no part of what is trained.
        self._teacher = [teacher] if teacher is not None and taught else []
        self._layers = _feature_layers(spec, stage)
        self._compared = self._student_layers()
        self._teacher_head = self._head()

    def forward(self, images: Tensor, targets: Any) -> LossValues:
        """Compute the losses of a batch.

        Args:
            images: (N, 3, H, W) float32, preprocessed for the student.
            targets: Targets, as ``Loader`` gives them.

        Returns:
            ``loss``, which is lowered, and its parts by kind, without their weights; ``auxiliary``,
            which fits the quantiles alone and is lowered beside it; ``bits`` per image if there is
            a density; ``correct``, the share of correct predictions, for classifiers whose output
            a loss compares; where a class is unknown, the teacher's answer counts as correct.
        """
        student, spec = self.student, self.student.spec
        images = images.contiguous(memory_format=torch.channels_last)
        with _captured(self._compared) as features:
            latent = self._encode(images)
            with torch.autocast(images.device.type, enabled=False):
                latent_hat, likelihoods, betas = self._quantise(latent.float())
            detection, output = self._decode(latent_hat, targets)
        taught, teacher_logits = self._teach(images)
        values = dict(detection)
        total = images.new_zeros(())
        for loss in self.stage.losses:
            if isinstance(loss, TaskLoss):
                value = _task_loss(loss, detection, output, targets)
            elif isinstance(loss, FeatureLoss):
                value = self._feature_loss(loss, features, taught)
            elif isinstance(loss, Distillation):
                value = _distillation(loss, output, teacher_logits, targets)
            else:
                value = _bits(likelihoods) * self._scale(loss.reduction, len(images))
            values[loss.kind] = values.get(loss.kind, 0.0) + value
            if isinstance(loss, RateLoss) and loss.weight is None and betas is not None:
                weighed = (betas * _bits_of_each(likelihoods)).sum()
                total = total + weighed * self._scale(loss.reduction, len(images))
                continue
            total = total + (spec.beta or 0.0 if loss.weight is None else loss.weight) * value
        if likelihoods:
            values["bits"] = _bits(likelihoods).detach() / len(images)
        if spec.task == "image-classification" and output is not None:
            if teacher_logits is not None:
                targets = torch.where(targets < 0, teacher_logits.argmax(1), targets)
            values["correct"] = (output.detach().argmax(1) == targets).float().mean()
        auxiliary = student.bottleneck.aux_loss() if student.bottleneck.training else None
        if auxiliary is not None:
            values["auxiliary"] = auxiliary
        return values | {"loss": total}

    def _encode(self, images: Tensor) -> Tensor:
        """Encode images; layers that stay as they are compute as in evaluation."""
        encoder = self.student.encoder
        parts = dict(encoder.named_children())
        if "head" not in parts or not is_frozen("encoder.head", self.stage):
            return encoder(images)
        with torch.autocast(images.device.type, enabled=False), torch.no_grad():
            features = parts["head"](images)
        return parts["g_a"](features)

    def _quantise(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Quantise a latent; return what comes out, its probabilities, and the images' own β.

        With several levels of rate, each image has one at random.
        """
        bottleneck = self.student.bottleneck
        if not isinstance(bottleneck, VariableRate):
            return *bottleneck.forward_with_likelihoods(latent), None
        levels = bottleneck.draw_levels(len(latent))
        latent_hat, likelihoods = bottleneck.forward_with_likelihoods(latent, levels)
        return latent_hat, likelihoods, bottleneck.betas[levels]

    def _decode(self, latent_hat: Tensor, targets: Any) -> tuple[LossValues, Any]:
        """Run the edge's half: a detector gives its losses, other models their logits."""
        decoder = self.student.decoder
        for name, part in decoder.named_children():
            if name != "tail":
                latent_hat = part(latent_hat)
        tail = decoder.get_submodule("tail")
        if self._teacher_head:
            return {}, None  # only features at the cut are compared
        if isinstance(tail, DetectionTail):
            if not any(isinstance(loss, TaskLoss) for loss in self.stage.losses):
                return {}, tail.dense(latent_hat)  # only features are compared
            areas = [tuple(target["area"].tolist()) for target in targets]
            return tail.losses(latent_hat, targets, areas), None
        if isinstance(tail, SegmentationTail):
            return {}, tail.forward_with_aux(latent_hat)
        if not is_frozen("decoder.tail", self.stage):
            return {}, tail(latent_hat)
        # As in evaluation; depthwise convolutions in bfloat16 would be slower on processors.
        with torch.autocast(latent_hat.device.type, enabled=False):
            return {}, tail(latent_hat.float())

    @torch.no_grad()
    def _teach(self, images: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Return the teacher's features and logits."""
        if not self._teacher:
            return {}, None
        if self._teacher_head:
            return {self._layers[0]: self._teacher_head[0](images)}, None
        tail = self._teacher[0].decoder.get_submodule("tail")
        layers = {layer: tail.get_submodule(_path(tail, layer)) for layer in self._layers}
        exact = torch.autocast(images.device.type, enabled=False)
        with _captured(layers) as features, exact:
            logits = tail.dense(images) if isinstance(tail, DetectionTail) else tail(images)
        return features, logits

    def _head(self) -> list[nn.Module]:
        """Return the teacher's layers up to the cut, where nothing behind it is compared."""
        spec = self.student.spec
        needed = all(isinstance(loss, FeatureLoss | RateLoss) for loss in self.stage.losses)
        if not self._teacher or not needed or self._layers != (spec.cut,):
            return []
        tail = self._teacher[0].decoder.get_submodule("tail")
        plain = not hasattr(tail, "body") and not channels_last(tail)
        return [head(tail, self._layers[0])] if plain else []

    def _student_layers(self) -> dict[str, nn.Module]:
        """Return the modules of the student that give the features, by the teacher's layers."""
        decoder, spec = self.student.decoder, self.student.spec
        tail = decoder.get_submodule("tail")
        try:
            return {
                layer: decoder.get_submodule("g_s")
                if layer == spec.cut
                else tail.get_submodule(_path(tail, layer))
                for layer in self._layers
            }
        except AttributeError as error:
            raise RecipeError(
                f"{spec.name} has no such features to compare: {error}.",
                next_step="Name layers of the backbone behind the cut, or the cut itself where the "
                "bottleneck has a decoder.",
            ) from error

    def _feature_loss(
        self, loss: FeatureLoss, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> Tensor:
        tail = self._teacher[0].decoder.get_submodule("tail")
        errors = []
        for layer in loss.layers or self._layers:
            ours, theirs = student[layer].float(), teacher[layer].float()
            if layer == self.student.spec.cut and channels_last(tail):
                theirs = theirs.permute(0, 3, 1, 2)
            if ours.shape != theirs.shape:
                raise RecipeError(
                    f"The student's features in place of {layer} are {tuple(ours.shape[1:])}, "
                    f"the teacher's {tuple(theirs.shape[1:])}.",
                    next_step="Use the same network, at the same input size, as the teacher.",
                )
            errors.append(functional.mse_loss(ours, theirs, reduction="sum"))
        images = len(next(iter(student.values())))
        total = sum(errors, torch.zeros((), device=errors[0].device))
        return total * self._scale(loss.reduction, images)

    def _scale(self, reduction: str, images: int) -> float:
        return self._processes if reduction == "sum" else 1 / images


def _task_loss(loss: TaskLoss, detection: LossValues, output: Any, targets: Any) -> Tensor:
    if detection:
        return torch.stack(list(detection.values())).sum()
    if isinstance(output, tuple):
        main, auxiliary = (
            functional.cross_entropy(logits, targets, ignore_index=UNLABELLED) for logits in output
        )
        return main + loss.auxiliary * auxiliary
    return functional.cross_entropy(output, targets, label_smoothing=loss.label_smoothing)


def _distillation(loss: Distillation, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    soft = functional.kl_div(
        functional.log_softmax(student / loss.temperature, 1),
        functional.log_softmax(teacher / loss.temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    soft = (1 - loss.alpha) * loss.temperature**2 * soft
    return soft + loss.alpha * functional.cross_entropy(student, targets) if loss.alpha else soft


def _bits(likelihoods: tuple[Tensor, ...]) -> Tensor:
    """Return the bits of all images: −log2 of the probabilities, summed."""
    return -torch.stack([likelihood.log2().sum() for likelihood in likelihoods]).sum()


def _bits_of_each(likelihoods: tuple[Tensor, ...]) -> Tensor:
    """Return the bits of each image, (N,)."""
    return -torch.stack([one.log2().flatten(1).sum(1) for one in likelihoods]).sum(0)


def _feature_layers(spec: ModelSpec, stage: Stage) -> tuple[str, ...]:
    """Return the layers whose features are compared; by default those that end a stage."""
    found: dict[str, None] = {}
    for loss in stage.losses:
        if not isinstance(loss, FeatureLoss):
            continue
        layers = loss.layers
        if not layers:
            ends = [part.layer for part in find_backbone(spec.backbone).stages]
            if spec.cut not in ends:
                raise RecipeError(
                    f"No stage of {spec.backbone} ends with {spec.cut}: name the layers."
                )
            layers = tuple(ends[ends.index(spec.cut) :])
        found |= dict.fromkeys(layers)
    return tuple(found)


def _check_rate(student: SplitModel, stage: Stage) -> None:
    rates = [loss for loss in stage.losses if isinstance(loss, RateLoss)]
    spec = student.spec
    if rates and student.bottleneck.aux_loss() is None:
        raise RecipeError(f"A {spec.bottleneck.kind} bottleneck has no density, so no rate loss.")
    has_beta = spec.beta is not None or isinstance(student.bottleneck, VariableRate)
    if not has_beta and any(loss.weight is None for loss in rates):
        raise RecipeError(
            f"{spec.name} has no β to weigh its rate with.",
            next_step="Give the rate loss a weight, or the model a beta.",
        )


def _path(tail: nn.Module, layer: str) -> str:
    """Return a layer's path in a tail; those of dense tasks hold the backbone in ``body``."""
    return f"body.{layer}" if hasattr(tail, "body") else layer


@contextlib.contextmanager
def _captured(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of some layers while the block runs."""
    outputs: dict[str, Tensor] = {}

    def hook_of(name: str):
        return lambda _module, _input, output: outputs.__setitem__(name, output)

    hooks = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
