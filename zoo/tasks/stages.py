"""Which of a backbone's layers dense tasks take features from."""

from splitrun.errors import SpecError

from ..backbones import Stage, find_backbone

STRIDES = (4, 8, 16, 32)


def dense_stages(backbone: str) -> tuple[Stage, ...]:
    """Return a backbone's last layers of strides 4, 8, 16 and 32.

    Args:
        backbone: Of our registry, or timm's name.

    Raises:
        UnknownNameError: There is no such backbone; it carries close names.
        SpecError: It has no features of one of these strides.
    """
    found = {stage.stride: stage for stage in find_backbone(backbone).stages}
    if missing := [stride for stride in STRIDES if stride not in found]:
        raise SpecError(
            f"{backbone} has no features at stride {', '.join(map(str, missing))}, "
            "which detection and segmentation take.",
            next_step="Take a convolutional backbone, such as resnet50.",
        )
    return tuple(found[stride] for stride in STRIDES)
