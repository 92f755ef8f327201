"""Publish a model: what is sent, in which commit, and what is refused."""

import shutil
from pathlib import Path

import pytest
from hub_server import READER, WRITER
from huggingface_hub import constants

from splitrun.errors import HubError, ModelFolderError
from splitzoo import __version__
from splitzoo.zoo.hub import fetch_model
from splitzoo.zoo.hub_names import Repo
from splitzoo.zoo.hub_push import push_model
from splitzoo.zoo.store import load_folder

# Of huggingface_hub's own call of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny"
CARD = b"---\nlicense: mit\n---\n# tiny\n![](split.svg)\n"
IMAGE = b"\x89PNG and so on"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refused(saying, folder, repo_id=NAME, *, next_step="", error=HubError, **options):
    with pytest.raises(error) as caught:
        push_model(folder, repo_id, token=options.pop("token", WRITER), **options)
    assert saying in caught.value.message
    assert next_step in caught.value.next_step
    assert "hf_" not in str(caught.value)


def test_a_model_is_published_in_one_commit_and_comes_back(hub, folder):
    (folder / "README.md").write_bytes(CARD)
    (folder / "split.svg").write_bytes(IMAGE)
    sent = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert push_model(folder, NAME, token=WRITER) == f"{hub.url}/org/tiny"
    repository = hub.repositories[NAME]
    assert list(repository.commits.values()) == [sent]
    assert repository.messages == [f"Add tiny by splitzoo {__version__}"]
    assert not repository.private
    for request in hub.requests:
        expected = None if "/large/" in request.path else f"Bearer {WRITER}"
        assert request.headers.get("authorization") == expected
    fetched = fetch_model(Repo(NAME))
    for name in ("config.json", "model.safetensors"):
        assert (fetched / name).read_bytes() == sent[name]


def test_a_loaded_model_publishes_itself(hub, tiny_model, tmp_path):
    card = tmp_path / "README.md"
    card.write_bytes(CARD)
    for name in ("split.svg", "card.json", "bits.png", "notes.txt"):
        (tmp_path / name).write_bytes(IMAGE)
    url = tiny_model.push_to_hub(NAME, token=WRITER, message="Mine", card=card)
    assert url == f"{hub.url}/org/tiny"
    files = hub.repositories[NAME].files()
    sent = ["README.md", "bits.png", "card.json", "config.json", "model.safetensors", "split.svg"]
    assert sorted(files) == sent
    assert hub.repositories[NAME].messages == ["Mine"]
    assert load_folder(fetch_model(Repo(NAME))).digest() == tiny_model.digest()


def test_nothing_else_that_lies_in_the_folder_is_sent_and_weights_once(hub, folder):
    for name in ("notes.txt", ".env", "checkpoint.pt", "model.safetensors.bak"):
        (folder / name).write_text("mine")
    (folder / "data").mkdir()
    (folder / "data" / "README.md").write_text("mine")
    push_model(folder, NAME, token=WRITER)
    assert sorted(hub.repositories[NAME].files()) == ["config.json", "model.safetensors"]
    (folder / "README.md").write_bytes(CARD)
    push_model(folder, NAME, token=WRITER)
    assert len(hub.seen("PUT /large/")) == 1
    assert len(hub.repositories[NAME].commits) == 2
    assert hub.repositories[NAME].files()["README.md"] == CARD


@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_a_card_from_elsewhere_comes_with_its_image(hub, folder, tmp_path, given):
    (folder / "README.md").write_text("of the folder")
    card = tmp_path / "card" / "README.md"
    card.parent.mkdir()
    card.write_bytes(CARD)
    (card.parent / "split.svg").write_bytes(IMAGE)
    place = card if given == "the file" else card.parent
    push_model(folder, NAME, token=WRITER, card=place, message="with a card")
    files = hub.repositories[NAME].files()
    assert (files["README.md"], files["split.svg"]) == (CARD, IMAGE)
    assert hub.repositories[NAME].messages == ["with a card"]


def test_a_private_repository_stays_one_and_a_public_one_is_none(hub, folder):
    for private in (True, True, False):
        push_model(folder, NAME, token=WRITER, private=private)
        assert hub.repositories[NAME].private
    push_model(folder, "org/public", token=WRITER)
    before = dict(hub.repositories["org/public"].commits)
    said = "exists already and is public; nothing was pushed"
    refused(said, folder, "org/public", private=True)
    assert hub.repositories["org/public"].commits == before


# Refusals


def test_what_is_refused_without_a_request(hub, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    refused("is not a saved model", tmp_path / "empty", error=ModelFolderError)
    refused("There is no card at", folder, card=tmp_path, next_step="splitzoo cards build")
    refused("does not name a repository", folder, "tiny")
    refused("pushed to the main branch", folder, "org/tiny@v1")
    refused("pushed to the main branch", folder, "org/tiny@main")
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        refused("HF_HUB_OFFLINE is set", folder, next_step="Unset it.")
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        refused(name, folder, error=ModelFolderError)
    assert hub.requests == []


def test_without_a_token(hub, folder):
    refused("the Hub does not accept the token, or got none", folder, token=None)
    assert hub.repositories == {}


@pytest.mark.parametrize("exists", [False, True])
def test_a_token_without_the_right_to_write(hub, folder, exists):
    if exists:
        hub.publish(NAME, {"README.md": b"# theirs"})
    refused("the token lacks the right to write there (You don't have", folder, token=READER)
    assert sum(request.method == "PUT" for request in hub.requests) == 0


FAILURES = (
    (500, {}, "the Hub is not working (status 500)"),
    (503, {"Retry-After": "3600"}, "the Hub is not working (status 503)"),
    (429, {"Retry-After": "3600"}, "too many requests"),
    (412, {}, "it changed meanwhile"),
    (413, {"X-Error-Message": "too large"}, "the Hub refused (status 413): too large"),
)
STEPS = ("/api/repos/create", "/preupload/", "/objects/batch", "/objects/verify", "/commit/")


@pytest.mark.parametrize(
    ("step", "status", "headers", "saying"),
    [
        (step, *failure)
        for number, step in enumerate(STEPS)
        for failure in (*FAILURES[:1], FAILURES[1 + number % 4])
    ],
)
def test_a_hub_that_fails_at_any_step(hub, folder, step, status, headers, saying):
    hub.fault("POST", step, times=99, status=status, headers=headers, body=b"{}")
    refused(f"Cannot push to org/tiny: {saying}", folder)
    assert sum(hub.waits) <= 23
    assert all(repository.commits == {} for repository in hub.repositories.values())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nonsense", [b"<html>", b"{}"])
def test_a_hub_that_talks_nonsense(hub, folder, step, nonsense):
    hub.fault("POST", step, times=99, status=200, body=nonsense)
    if step == "/objects/verify":
        push_model(folder, NAME, token=WRITER)
    else:
        saying = "is not the Hub" if nonsense == b"<html>" else "Cannot push to org/tiny: "
        refused(saying, folder)


def test_a_store_that_does_not_work_or_fails_once(hub, folder):
    hub.fault("PUT", "/large/", times=99, status=500)
    refused("the Hub is not working (status 500)", folder)
    assert hub.repositories[NAME].commits == {}
    hub.faults.clear()
    hub.fault("PUT", "/large/", status=503)
    push_model(folder, NAME, token=WRITER)
    assert len(hub.repositories[NAME].commits) == 1
    sent = hub.repositories[NAME].files()["model.safetensors"]
    assert sent == (folder / "model.safetensors").read_bytes()
    hub.close()
    refused("Cannot push to org/tiny: ", folder, next_step="HF_ENDPOINT")


@pytest.mark.parametrize("step", ["/api/repos/create", "/commit/"])
def test_a_hub_that_does_not_answer(hub, folder, monkeypatch, step):
    monkeypatch.setattr("splitzoo.zoo.hub_errors.WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fault("POST", step, times=99, delay_s=60)
    refused("did not answer in time", folder)
