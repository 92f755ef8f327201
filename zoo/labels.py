"""Labels of a model's classes: its own, or its data set's, from the libraries that carry them."""

from .spec import ModelSpec


def labels_of(spec: ModelSpec) -> list[str]:
    """Return the label of each of a model's class indexes: its own, or its data set's."""
    return list(spec.labels) or class_labels(spec.dataset, spec.num_classes)


def class_labels(dataset: str, num_classes: int) -> list[str]:
    """Return the label of each class index.

    ImageNet's come with timm, COCO's and VOC's with torchvision; classes of other data sets are
    numbered.
    """
    labels: list[str] = []
    if dataset == "imagenet-1k":
        from .deprecations import quiet_torchscript

        with quiet_torchscript():
            from timm.data.imagenet_info import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        labels = [info.index_to_description(index) for index in range(info.num_classes())]
    elif dataset == "coco-2017":
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        labels = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    elif dataset == "pascal-voc-2012":
        from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

        labels = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    if len(labels) == num_classes:
        return list(labels)
    return [f"class {index}" for index in range(num_classes)]
