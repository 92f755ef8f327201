"""Cards of repositories on the Hub are computed again from the weights beside them."""

import json
from pathlib import Path

import pytest
from commands import refused

from splitzoo import cards
from splitzoo.zoo.packaged import packaged_folder

GENERATED = Path(__file__).parents[2] / "cards" / "generated"
MODEL = "flowers-splittable_regnetx_002-fp-beta3"
OTHER = "flowers-splittable_regnetx_002-fp-beta1"
NAME = "org/model"


def published(weights: str = MODEL) -> dict[str, bytes]:
    """The files of a repository: a card of ``MODEL`` beside the weights of a model."""
    folder = packaged_folder(weights)
    assert folder
    places = [folder / "config.json", folder / "model.safetensors"]
    places += [GENERATED / MODEL / name for name in ("README.md", "card.json")]
    return {place.name: place.read_bytes() for place in places}


def test_a_repository_s_card_agrees_with_its_weights(hub, splitzoo) -> None:
    hub.publish(NAME, published())
    code, out, err = splitzoo("cards", "verify", NAME, "--no-bundle", "--json")
    assert (code, "Nothing differs." in err) == (0, True)
    (found,) = json.loads(out)
    assert (found["card"], found["model"]) == (NAME, MODEL)
    same = {one["name"] for one in found["checks"] if one["verdict"] == "same"}
    assert {"bundle.model_sha256", "bundle.device_sha256", "profile.device_macs"} <= same
    assert any(request.endswith("/card.json") for request in hub.seen("card.json"))


def test_what_was_edited_on_the_hub_is_listed(hub, splitzoo) -> None:
    files = published()
    edited = files["README.md"].replace(b"| top-1 | 77.99% |", b"| top-1 | 97.99% |")
    assert edited != files["README.md"]
    first = hub.publish(NAME, files)
    hub.publish(NAME, {"README.md": edited})
    code, _, err = splitzoo("cards", "verify", NAME, "--no-bundle")
    assert code == 3
    assert "is | top-1 | 97.99% |, here | top-1 | 77.99% |" in err
    assert "1 numbers or lines differ." in err
    # At the commit before, the card is right.
    assert splitzoo("cards", "verify", f"{NAME}@{first}", "--no-bundle")[0] == 0


def test_a_card_beside_other_weights_is_found(hub) -> None:
    hub.publish(NAME, published(OTHER))
    found = {one.name for one in cards.verify(NAME, bundle=False).differences}
    assert found == {"bundle.model_sha256", "bundle.device_sha256"}


@pytest.mark.parametrize(
    ("missing", "saying"),
    [("card.json", "holds no card.json"), ("README.md", "Cannot read the card")],
)
def test_a_repository_without_a_whole_card_is_told(hub, splitzoo, missing, saying) -> None:
    files = published()
    del files[missing]
    hub.publish(NAME, files)
    refused(splitzoo("cards", "verify", NAME, "--no-bundle"), saying)


def test_a_repository_that_is_not_there_is_told(hub, splitzoo) -> None:
    refused(splitzoo("cards", "verify", "org/none", "--no-bundle"), "org/none")
