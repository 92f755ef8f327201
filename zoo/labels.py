"""The names of a data set's classes."""


def class_labels(dataset: str, num_classes: int) -> list[str]:
    """Return the label of each class index.

    ImageNet's come with timm; classes of other data sets are numbered.
    """
    if dataset == "imagenet-1k" and num_classes == 1000:
        from .deprecations import quiet_torchscript

        with quiet_torchscript():
            from timm.data.imagenet_info import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(index) for index in range(num_classes)]
    return [f"class {index}" for index in range(num_classes)]
