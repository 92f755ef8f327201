"""Tasks of the SC2 paper: data set, input and teacher that the models of each have in common."""

from dataclasses import dataclass, replace
from typing import Any

from splitrun.errors import SpecError
from splitrun.preprocessing import Preprocessing

from ..backbones.table import Backbone, DetectorSizes
from ..kinds import Task
from ..models import MODELS
from ..spec import ModelSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TaskFacts:
    """One task of the SC2 paper.

    Attributes:
        task: Name of the task.
        prefix: Beginning of its models' names.
        dataset: Data set that its models are trained on.
        num_classes: Number of classes of that data set; COCO's and VOC's with the background.
        folder: Folder of its configurations in sc2-benchmark; its experiments' names begin with it.
        preprocessing: Input of its models on the paper's backbones; None where the backbone says.
    """

    task: Task
    prefix: str
    dataset: str
    num_classes: int
    folder: str
    preprocessing: Preprocessing | None

    def teacher(self, backbone: str) -> str:
        """Return sc2-benchmark's name of the network that a model is taught by."""
        suffix = "_fpn" if self.task == "object-detection" else ""
        return f"{self.prefix}{backbone}{suffix}"

    def input_of(self, backbone: Backbone) -> Preprocessing:
        """Return the preprocessing of this task's models on a backbone."""
        own, sizes = backbone.preprocessing, backbone.detector
        if self.preprocessing is None:
            return own
        dense = replace(self.preprocessing, mean=own.mean, std=own.std)
        if self.task != "object-detection":
            return dense
        return replace(dense, resize=sizes.resize, longest=sizes.longest, crop=sizes.crop)

    def spec(self, backbone: Backbone, **fields: Any) -> ModelSpec:
        """Return a spec with this task's data set and input, and a backbone's name and weights.

        Args:
            backbone: Backbone of the model.
            fields: All other fields of the spec, and those that differ.
        """
        common = {
            "task": self.task,
            "backbone": backbone.timm_name,
            "dataset": self.dataset,
            "num_classes": self.num_classes,
            "preprocessing": self.input_of(backbone),
            "base_model": backbone.base_model,
        }
        return ModelSpec(**common | fields)


CLASSIFICATION = TaskFacts(
    "image-classification", "", "imagenet-1k", 1000, "ilsvrc2012", preprocessing=None
)
DETECTION = TaskFacts(
    "object-detection",
    "faster_rcnn_",
    "coco-2017",
    91,
    "coco2017",
    Preprocessing(
        resize=DetectorSizes.resize,
        crop=DetectorSizes.crop,
        longest=DetectorSizes.longest,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        fit="pad",
    ),
)
SEGMENTATION = TaskFacts(
    "semantic-segmentation",
    "deeplabv3_",
    "pascal-voc-2012",
    21,
    "pascal_voc2012",
    Preprocessing(
        resize=513, crop=(528, 704), interpolation="bilinear", mean=MEAN, std=STD, fit="pad"
    ),
)
_DATASETS = {
    1000: "imagenet-1k",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
    21843: "imagenet-21k",
}
"""Data sets by their number of classes, which differs even between versions of one."""

TASKS = (CLASSIFICATION, DETECTION, SEGMENTATION)


def task_of(prefix: str | None) -> TaskFacts:
    """Return the task whose models' names have this prefix; classification's have none."""
    return next(task for task in TASKS if task.prefix == (prefix or ""))


def check_classifies(prefix: str | None) -> None:
    """Raise ``ValueError`` for the prefix of a dense task."""
    if prefix:
        raise ValueError(
            f"{prefix}… is split by Entropic Student or CR + BQ, or has a codec in front of it, "
            "but is not cut after a layer"
        )


def published_classes(backbone: Backbone) -> dict[str, Any]:
    """Return data set and number of classes of a backbone's published weights, as spec fields.

    Models of which nothing is trained have these.

    Raises:
        SpecError: The weights classify nothing.
    """
    classes = backbone.num_classes
    if classes < 1:
        raise SpecError(
            f"{backbone.name} has no classifier, so no model can be made of it and a codec.",
            next_step="Take another tag or backbone: "
            "python -c 'import timm; print(timm.list_pretrained())'",
        )
    return {"dataset": _DATASETS.get(classes, f"{classes} classes"), "num_classes": classes}


def register(spec: ModelSpec, *aliases: str) -> None:
    """Register a model under its name, its name in sc2-benchmark, and further ones."""
    known = [spec.reference, spec.reference.partition("-")[2] if "/" not in spec.reference else ""]
    names = dict.fromkeys(name for name in (*known, *aliases) if name and name != spec.name)
    MODELS.register(spec.name, spec, aliases=[name for name in names if name not in MODELS])
