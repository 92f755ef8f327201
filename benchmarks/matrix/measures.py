"""The file of what is known of the models' size, accuracy and bytes: ``zoo/measures.json``."""

from pathlib import Path

from torch import nn

from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo.measures import Measured, Measures, encoder_of
from splitzoo.zoo.models import registered
from splitzoo.zoo.packaged import packaged
from splitzoo.zoo.parts import bottleneck_parts, building, encoder_bits
from splitzoo.zoo.spec import ModelSpec
from splitzoo.zoo.split_model import SplitModel

RESULTS = Path(__file__).parents[1] / "results"
FAMILIES = ("flowers", "imagenet")
"""Folders of the reports of the trained families."""


def count_measures(progress: Progress = SILENT) -> Measures:
    """Count the bits of every encoder, and read the reports of the carried models."""
    firsts: dict[str, ModelSpec] = {}
    for spec in registered():
        firsts.setdefault(encoder_of(spec), spec)
    specs = progress.track(list(firsts.values()), "encoders")
    return Measures(models=read_models(), encoder_bits={spec.name: _bits(spec) for spec in specs})


def read_models() -> dict[str, Measured]:
    """Return what the reports say of the carried models."""
    return {name: _measured(report_of(name)) for name in packaged()}


def report_of(name: str) -> Path:
    """Return the report of a carried model, as it is carried: with calibrated tables, if any."""
    names = f"{name}-calibrated.json", f"{name}.json"
    places = [RESULTS / family / one for one in names for family in FAMILIES]
    return next((place for place in places if place.is_file()), places[-1])


def _measured(path: Path) -> Measured:
    report = read_accuracy(path)
    return Measured(
        scores=report.scores,
        stream_bytes=round(report.stream_bytes.mean, 1),
        images=report.data.images,
        data=report.data.folder,
        command=report.command,
    )


def _bits(spec: ModelSpec) -> int:
    with building(spec):
        encoder, bottleneck, _ = bottleneck_parts(spec)
        device = SplitModel(spec, encoder=encoder, bottleneck=bottleneck, decoder=nn.Sequential())
    return encoder_bits(device)
