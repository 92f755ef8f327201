"""How a model was trained: what its ``config.json`` and its card say. Imports no torch."""

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StageRecord(_Part):
    """One stage, as it went.

    Attributes:
        objective: What was lowered, in words.
        learning: Optimiser and schedule, in words.
        kept_epoch: The epoch whose weights were kept, from 1.
        scores: On the validation images, without coding, with those weights: shares in [0, 1].
        bits: Per validation image, by the learned density; None where there is none.
    """

    objective: str
    learning: str
    epochs: int
    batch_size: int
    learning_rate: float
    frozen: list[str]
    kept_epoch: int
    scores: dict[str, float]
    bits: float | None


class TrainingRecord(_Part):
    """How a model was trained.

    Attributes:
        recipe: Its name.
        command: That trained the model.
        teacher: Name and id of its tensors; empty without one.
        training_images: How many; likewise ``validation_images``.
        data_sha256: Of the names and sizes of all images.
        date: When it ended.
        seconds: That it took.
        versions: Of the packages used.
    """

    recipe: str
    command: str
    teacher: str
    seed: int
    stages: list[StageRecord]
    training_images: int
    validation_images: int
    data_sha256: str
    date: str
    seconds: float
    machine: str
    versions: dict[str, str]
