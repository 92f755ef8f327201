"""The sizes of encoders, ``zoo/measures.json``; and where carried models' reports are."""

from pathlib import Path

from torch import nn

from splitzoo.progress import SILENT, Progress
from splitzoo.zoo.measures import Measures, encoder_of
from splitzoo.zoo.models import registered
from splitzoo.zoo.parts import bottleneck_parts, building, encoder_bits
from splitzoo.zoo.spec import ModelSpec
from splitzoo.zoo.split_model import SplitModel

RESULTS = Path(__file__).parents[1] / "results"
FAMILIES = ("flowers", "imagenet")
"""Folders of the reports of the trained families."""


def count_measures(progress: Progress = SILENT) -> Measures:
    """Count the bits of every encoder."""
    firsts: dict[str, ModelSpec] = {}
    for spec in registered():
        firsts.setdefault(encoder_of(spec), spec)
    specs = progress.track(list(firsts.values()), "encoders")
    return Measures(encoder_bits={spec.name: _bits(spec) for spec in specs})


def report_of(name: str) -> Path:
    """Return the report of a carried model, as it is carried: with calibrated tables, if any."""
    names = f"{name}-calibrated.json", f"{name}.json"
    places = [RESULTS / family / one for one in names for family in FAMILIES]
    return next((place for place in places if place.is_file()), places[-1])


def _bits(spec: ModelSpec) -> int:
    with building(spec):
        encoder, bottleneck, _ = bottleneck_parts(spec)
        device = SplitModel(spec, encoder=encoder, bottleneck=bottleneck, decoder=nn.Sequential())
    return encoder_bits(device)
