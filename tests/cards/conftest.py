"""Reports and a card of the tiny model."""

import pytest
from huggingface_hub import ModelCard

from splitzoo import cards
from splitzoo.profile.measure import profile_bundle, profile_model


@pytest.fixture(scope="session")
def report(tiny_bundle, photos, tmp_path_factory):
    """The file of a profile of the tiny bundle."""
    path = tmp_path_factory.mktemp("reports") / "report.json"
    command = "splitzoo profile encoder bundle --images photos -o report.json"
    profile_bundle(
        tiny_bundle, images=photos[:3], threads=1, warmup=1, iterations=3, command=command
    ).save(path)
    return path


@pytest.fixture(scope="session")
def model_report(tiny_model, tmp_path_factory):
    """The file of a profile of the tiny model in PyTorch, without photos."""
    path = tmp_path_factory.mktemp("reports") / "model.json"
    profile_model(tiny_model, warmup=0, iterations=1, command="splitzoo …").save(path)
    return path


@pytest.fixture(scope="session")
def card_path(tiny_bundle, report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "card"
    return cards.build(folder, bundle=tiny_bundle, profile=report)


@pytest.fixture(scope="session")
def card(card_path):
    return ModelCard.load(card_path)
