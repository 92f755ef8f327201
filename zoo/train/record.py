"""How a model was trained, as its ``config.json`` and its card say it. Imports no torch."""

from pydantic import BaseModel, ConfigDict

from splitrun.image_files import UnreadCount


class StageRecord(BaseModel):
    """One stage, as it went.

    Attributes:
        objective: Losses, in words.
        learning: Optimiser and schedule, in words.
        kept_epoch: Epoch whose weights were kept, counted from 1; 0 where those were kept that the
            stage began with.
        scores: Scores of those weights on the validation images, quantised as the bitstream is,
            without coding: shares in [0, 1].
        bits: Bits per validation image by the learned density; None without one.
    """

    model_config = ConfigDict(extra="forbid")

    objective: str
    learning: str
    epochs: int
    batch_size: int
    learning_rate: float
    frozen: list[str]
    kept_epoch: int
    scores: dict[str, float]
    bits: float | None


class TrainingRecord(BaseModel):
    """How a model was trained.

    Attributes:
        recipe: Name of the recipe.
        command: Command that trained the model.
        teacher: Name of the teacher and id of its tensors; empty without one.
        training_images: Number of training images.
        validation_images: Number of validation images, or of training images that were held out.
        held_out: Whether those were held out.
        unread: Files that were left out, by reason and ending.
        data_changes: What changed in the data set while the run was interrupted, in words.
        data_sha256: Digest of the names and sizes of all images.
        date: Day on which training ended.
        seconds: Duration of the training.
        versions: Versions of the packages used.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str
    command: str
    teacher: str
    seed: int
    stages: list[StageRecord]
    training_images: int
    validation_images: int
    held_out: bool = False
    unread: tuple[UnreadCount, ...] = ()
    data_changes: list[str] = []
    data_sha256: str
    date: str
    seconds: float
    machine: str
    versions: dict[str, str]
