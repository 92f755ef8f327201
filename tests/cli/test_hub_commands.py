"""The Hub from the command line and from ``zoo.load``; a Hub on loopback."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import finish, refused
from hub_server import READER, WRITER, without_hub
from huggingface_hub import constants
from names_of_models import RESNET

from splitzoo import zoo

# Of huggingface_hub's own call of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.slow
def test_push_and_pull_as_processes(hub, folder, tmp_path):
    """What is set in the environment counts, and nothing else on this machine."""

    def run(*words: object, **more: str) -> tuple[int, str, str]:
        environment = hub.environment(tmp_path / "home", **more)
        return finish("zoo", *words, env=without_hub(os.environ) | environment)

    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    code, out, err = run("push", folder, NAME, "--private", HF_TOKEN=WRITER)
    assert (code, out) == (0, f"{hub.url}/org/tiny\n"), err
    refused(run("pull", NAME), "Cannot fetch org/tiny: there is no such repository, or it is pri")
    code, out, err = run("pull", NAME, HF_TOKEN=READER)
    assert code == 0, err
    pulled = Path(out.strip())
    assert pulled.is_relative_to(tmp_path / "home" / "hub")
    assert (pulled / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    asked = len(hub.requests)
    assert run("pull", NAME, HF_HUB_OFFLINE="1")[:2] == (0, out)
    assert run("pull", f"{NAME}@{pulled.name}")[:2] == (0, out)
    assert len(hub.requests) == asked
    hub.close()
    code, again, err = run("pull", NAME)
    assert (code, again) == (0, out)
    assert "refuses connections. The copy in the cache is used" in err
    assert "Traceback" not in err


def test_pull_prints_the_folder_in_the_cache_or_in_ones_own(hub, splitzoo, tiny_folder, tmp_path):
    sha = hub.publish(NAME, tiny_folder, private=True)
    refused(splitzoo("zoo", "pull", NAME), "or it is private", "hf auth login")
    mine = ("--token", READER, "--cache-dir", tmp_path / "mine")
    code, out, err = splitzoo("zoo", "pull", NAME, *mine)
    assert code == 0
    pulled = Path(out.strip())
    assert pulled.is_relative_to(tmp_path / "mine")
    assert pulled.name == sha
    assert not list(Path(constants.HF_HUB_CACHE).glob("*/snapshots"))
    assert READER not in out + err
    for path in tiny_folder.iterdir():
        assert (pulled / path.name).read_bytes() == path.read_bytes()
    assert splitzoo("zoo", "pull", f"{NAME}@{sha}", *mine)[:2] == (0, out)


def test_a_registered_name_is_looked_up_in_the_namespace(hub, splitzoo, monkeypatch):
    name = RESNET
    monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", "org")
    asked = splitzoo("zoo", "pull", name)
    refused(asked, f"No weights for {name}", f"{hub.url}/org/{name}", "--random-weights")
    assert hub.seen() == [f"HEAD /org/{name}/resolve/main/config.json"]


def test_show_of_a_repository_fetches_its_config_alone(hub, splitzoo, tiny_folder, tiny_model):
    hub.publish(NAME, tiny_folder)
    code, out, _ = splitzoo("zoo", "show", NAME, "--json")
    assert code == 0
    assert zoo.ModelSpec.model_validate(json.loads(out)["spec"]) == tiny_model.spec
    assert hub.seen("model.safetensors") == []


def test_push_sends_weights_config_and_a_card_in_one_commit(hub, splitzoo, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(RESNET)  # a folder of its own, of a model of another name
    (folder.parent / RESNET / "notes.txt").write_text("mine")
    words = ("zoo", "push", f"./{RESNET}", NAME, "--private", "-m", "the first")
    monkeypatch.setenv("HF_TOKEN", READER)
    said = "Cannot push to org/tiny: the token lacks the right to write there"
    refused(splitzoo(*words), said)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    code, out, err = splitzoo(*words)
    assert (code, out) == (0, f"{hub.url}/org/tiny\n")
    assert WRITER not in err
    repository = hub.repositories[NAME]
    (files,) = repository.commits.values()
    assert sorted(files) == [
        "README.md",
        "card.json",
        "config.json",
        "model.safetensors",
        "split-dark.svg",
        "split.svg",
    ]
    name = json.loads(files["config.json"])["spec"]["name"]
    assert name != RESNET
    assert f"\n# {name}\n".encode() in files["README.md"]
    assert b"library_name: splitzoo" in files["README.md"]
    assert repository.private
    assert repository.messages == ["the first"]


def test_what_names_no_model_is_refused_without_a_request(hub, splitzoo):
    refused(splitzoo("zoo", "pull", "org/name/more"), "org/name/more")
    refused(splitzoo("zoo", "push", "org/name/more", "org/a"), "org/name/more")
    assert hub.requests == []


def test_load_of_a_repository(hub, tmp_path, tiny_folder, tiny_model):
    sha = hub.publish(NAME, tiny_folder)
    for asked in ({}, {"revision": sha}, {"revision": "main", "local_files_only": True}):
        loaded = zoo.load(NAME, **asked)
        assert loaded.digest() == tiny_model.digest()
        assert loaded.source == NAME
    assert zoo.load(f"{NAME}@{sha}", token=READER).digest() == tiny_model.digest()
    assert zoo.get_spec(NAME) == tiny_model.spec
    assert zoo.load(NAME, pretrained=False, seed=3).random_seed == 3
    zoo.load(NAME, cache_dir=tmp_path / "other")
    assert (tmp_path / "other" / "models--org--tiny").is_dir()


def test_load_of_a_registered_name_from_the_namespace(hub, monkeypatch, tiny_folder, tiny_model):
    monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", "org")
    hub.publish(f"org/{RESNET}", tiny_folder)
    assert RESNET not in zoo.list_models(pretrained=True)
    assert zoo.load(RESNET).digest() == tiny_model.digest()
    hub.requests.clear()
    assert RESNET in zoo.list_models(pretrained=True)
    assert hub.requests == []
