"""What a precision below fp32 changes, as a bundle's manifest has it."""

from dataclasses import dataclass

from .image_files import UnreadCount


@dataclass(frozen=True)
class PrecisionReport:
    """What a precision below fp32 changes, on images that it was not calibrated to.

    Attributes:
        calibrated: Images that ranges were taken from.
        held_out: Other images, or made ones, that were compared.
        real_images: Whether real images were compared, not made ones.
        symbols: Symbols compared.
        flips: Share of the symbols that differ from fp32's.
        changed: Number of symbols that differ for each that is not 0.
        most_changed: The same of one tensor of one image at most, those of parity among them.
        largest_difference: Largest difference of a symbol, on all of these.
        wire_error: Largest difference of floats on the wire, relative to the largest.
        payload_bytes_fp32: Mean payload in fp32.
        payload_bytes: Mean payload.
        labelled: Images held out that are of a class of the model.
        correct_fp32: Those named correctly in fp32.
        correct: Those named correctly.
        unread: Files of the folder that were not read, by reason and ending.
        kept_fp32: Parts left in fp32.
        accepted: Limits that were exceeded, and accepted, in words.
        warnings: What speaks against relying on the images, in words.
    """

    calibrated: int
    held_out: int
    real_images: bool
    symbols: int
    flips: float
    changed: float
    most_changed: float
    largest_difference: int
    wire_error: float
    payload_bytes_fp32: float
    payload_bytes: float
    labelled: int = 0
    correct_fp32: int | None = None
    correct: int | None = None
    unread: tuple[UnreadCount, ...] = ()
    kept_fp32: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def rate_inflation(self) -> float:
        """Growth of the payload, as a share."""
        return self.payload_bytes / self.payload_bytes_fp32 - 1


@dataclass(frozen=True)
class EdgePrecisionReport:
    """What an edge precision below fp32 changes, on images that it was not calibrated to.

    Both edges read the same streams, of symbols in fp32.

    Attributes:
        calibrated: Images that ranges were taken from.
        held_out: Other images, or made ones, that were compared.
        real_images: Whether real images were compared, not made ones.
        answers: Answers compared: a class per image, or per pixel; 0 where boxes are the answer.
        answers_changed: Those that are others than in fp32.
        output_error: Root of the mean square of the outputs' differences, relative to theirs.
        worst_error: Largest difference of an output relative to the largest, of one image at most,
            those of parity among them.
        labelled: Images held out that are of a class of the model.
        correct_fp32: Those named correctly in fp32.
        correct: Those named correctly.
        accepted: Limits that were exceeded, and accepted, in words.
        warnings: What speaks against relying on the images, in words.
    """

    calibrated: int
    held_out: int
    real_images: bool
    answers: int
    answers_changed: int
    output_error: float
    worst_error: float
    labelled: int = 0
    correct_fp32: int = 0
    correct: int = 0
    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
