"""Tasks and methods by name. Imports nothing, so that ``--help`` offers them at once."""

from typing import Literal

Task = Literal["image-classification", "object-detection", "semantic-segmentation"]
TASKS: tuple[Task, ...] = ("image-classification", "object-detection", "semantic-segmentation")

Method = Literal[
    "entropic-student",
    "end-to-end",
    "shallow-injection",
    "channel-reduction",
    "fine-tuning",
    "feature-compression",
    "input-compression",
]
