"""Models of the Hub: names, what is fetched and in which order, what the cache spares."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import READER, without_hub
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from splitrun.errors import HubError, WeightsNotFoundError
from splitzoo import zoo
from splitzoo.zoo.hub import fetch_model, hub_name, is_cached, parse_repo
from splitzoo.zoo.hub_names import Repo
from splitzoo.zoo.store import load_folder

NAME = "org/tiny"
REPO = Repo(NAME)


@pytest.fixture
def other_folder(tiny_folder, tmp_path):
    """The same weights under another config."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["dataset"] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Names


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("org/name", "org/name", "main"),
        ("Org-1/na_me.v2", "Org-1/na_me.v2", "main"),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
        ("org/name@" + "0a" * 20, "org/name", "0a" * 20),
    ],
)
def test_a_name_of_a_repository_is_read(text, repo_id, revision):
    assert parse_repo(text) == Repo(repo_id, revision)
    assert str(parse_repo(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "name", "org/", "/name", "org/name/more", "./name", "org/..", "../name", "~/name"),
        *("org /name", "org/na me", "org/name.git", "org/-name", "org/name-", "a--b/c", "a/b..c"),
        *("https://huggingface.co/org/name", "org/naïve", "org/" + "n" * 97, "org\\name", "o/n\n"),
    ],
)
def test_what_names_no_repository_is_refused(text):
    with pytest.raises(HubError, match="does not name a repository") as caught:
        parse_repo(text)
    assert "org/name@revision" in caught.value.next_step


@pytest.mark.parametrize(
    "revision",
    [
        *("", "..", "../../outside", "a/../b", "/etc", "a//b", "a/"),
        *("-x", ".x", "a b", "a@b", "x" * 201),
    ],
)
def test_a_revision_that_would_leave_the_cache_is_refused(revision):
    with pytest.raises(HubError, match="names no revision"):
        parse_repo(f"org/name@{revision}")


@given(st.text(alphabet="ab./@-_ \\~\n", max_size=12))
def test_no_name_leads_out_of_the_cache(text):
    try:
        repo = parse_repo(text)
    except HubError:
        return
    assert str(repo) == text.removesuffix("@main")
    for part in (*repo.repo_id.split("/"), *repo.revision.split("/")):
        assert part
        assert not part.startswith((".", "-"))
        assert ".." not in part


def test_every_registered_name_has_a_repository_in_a_namespace_that_can_be_set(monkeypatch):
    for name in zoo.list_models():
        assert parse_repo(hub_name(name)) == Repo(f"splitzoo/{name}")
        assert Repo(f"splitzoo/{name}").model == name
    monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", "somebody")
    assert hub_name("a-model") == "somebody/a-model"
    assert Repo("somebody/a-model").model == "a-model"
    assert Repo("splitzoo/a-model").model is None
    monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", "")
    assert hub_name("a-model") == "splitzoo/a-model"
    for namespace in ("some/body", "..", "a b", "-a"):
        monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", namespace)
        with pytest.raises(HubError, match="SPLITZOO_HUB_NAMESPACE"):
            hub_name("a-model")


# Fetching


def test_a_model_is_fetched_config_first_and_all_of_one_commit(hub, tiny_folder, tiny_model):
    others = {"README.md": b"# card", "run.py": b"import os"}
    sha = hub.publish(NAME, contents(tiny_folder) | others, private=True)
    folder = fetch_model(REPO, token=READER)
    assert folder == Path(constants.HF_HUB_CACHE) / "models--org--tiny" / "snapshots" / sha
    assert contents(folder) == contents(tiny_folder)
    *on_hub, on_store = hub.seen()
    assert on_hub == [
        "HEAD /org/tiny/resolve/main/config.json",
        f"HEAD /org/tiny/resolve/{sha}/config.json",
        f"GET /org/tiny/resolve/{sha}/config.json",
        f"HEAD /org/tiny/resolve/{sha}/model.safetensors",
    ]
    assert on_store.startswith("GET /large/")
    # The token goes to the Hub and nowhere else.
    sent = [request.headers.get("authorization") for request in hub.requests]
    assert sent == [f"Bearer {READER}"] * 4 + [None]
    # A commit at hand needs no request.
    hub.requests.clear()
    assert fetch_model(Repo(NAME, sha)) == folder
    assert is_cached(f"{NAME}@{sha}")
    assert hub.requests == []
    assert load_folder(folder).digest() == tiny_model.digest()


def test_a_push_in_between_does_not_mix_commits(hub, tiny_folder, other_folder):
    hub.publish(NAME, tiny_folder)
    hub.fault("GET", "config.json", then=lambda: hub.publish(NAME, other_folder))
    assert contents(fetch_model(REPO)) == contents(tiny_folder)
    assert contents(fetch_model(REPO)) == contents(other_folder)


@pytest.mark.parametrize("revision", ["v1", "feature/x.y", "refs/pr/3"])
def test_a_branch_tag_or_pull_request(hub, tiny_folder, other_folder, revision):
    old = hub.publish(NAME, tiny_folder)
    hub.repositories[NAME].refs[revision] = old
    hub.publish(NAME, other_folder)
    assert fetch_model(Repo(NAME, revision)).name == old
    assert fetch_model(Repo(NAME, revision), local_files_only=True).name == old
    assert is_cached(f"{NAME}@{revision}")
    assert not is_cached(NAME)


def test_the_cache_is_where_it_is_asked_for(hub, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    hub.publish(NAME, tiny_folder)
    folder = fetch_model(REPO, cache_dir="~/mine")
    assert folder.is_relative_to(tmp_path / "mine")
    assert is_cached(NAME, cache_dir=tmp_path / "mine")
    assert not is_cached(NAME)
    hub.requests.clear()
    assert fetch_model(REPO, cache_dir="~/mine", local_files_only=True) == folder
    assert hub.seen() == []


# The cache


def test_a_branch_that_moved_is_followed(hub, tiny_folder, other_folder):
    old = hub.publish(NAME, tiny_folder)
    assert fetch_model(REPO).name == old
    hub.requests.clear()
    assert fetch_model(REPO).name == old
    # One request tells that nothing is new.
    assert hub.seen() == ["HEAD /org/tiny/resolve/main/config.json"]
    new = hub.publish(NAME, other_folder)
    folder = fetch_model(REPO)
    assert folder.name == new
    assert contents(folder) == contents(other_folder)
    # The weights are the same, and not downloaded again.
    assert hub.seen("GET /large/") == []
    assert fetch_model(Repo(NAME, old), local_files_only=True).name == old


@pytest.mark.parametrize("way", ["local_files_only", "HF_HUB_OFFLINE"])
def test_offline_only_a_whole_model_at_hand_is_used_without_a_request(
    hub, tiny_folder, monkeypatch, way
):
    hub.publish(NAME, tiny_folder)
    fetch_model(REPO, config_only=True)
    hub.requests.clear()
    # Telemetry would ask a question of its own.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "HF_HUB_OFFLINE")
    local = way == "local_files_only"
    with pytest.raises(WeightsNotFoundError) as caught:
        fetch_model(REPO, local_files_only=local)
    assert caught.value.message == (
        f"No weights for org/tiny: {way} is set, and {constants.HF_HUB_CACHE} holds no whole copy "
        "of org/tiny."
    )
    assert caught.value.next_step.endswith("splitzoo zoo pull org/tiny")
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = fetch_model(REPO)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "HF_HUB_OFFLINE")
    assert fetch_model(REPO, local_files_only=local) == folder
    assert fetch_model(REPO, config_only=True, local_files_only=local) == folder
    assert hub.requests == []


def test_with_the_hub_down_or_out_of_reach_a_model_at_hand_is_used(hub, tiny_folder, caplog):
    sha = hub.publish(NAME, tiny_folder)
    folder = fetch_model(REPO)
    for status in (429, 500, 503):
        hub.requests.clear()
        hub.faults.clear()
        headers = {"Retry-After": "3600"}
        hub.fault("HEAD", "config.json", times=9, status=status, headers=headers)
        assert fetch_model(REPO) == folder
        assert len(hub.requests) == 1
        assert f"answers with status {status}" in caplog.messages[-1]
    hub.close()
    assert fetch_model(REPO) == folder
    assert caplog.messages[-1] == (
        f"org/tiny: {hub.url.removeprefix('http://')} refuses connections. "
        f"The copy in the cache is used, commit {sha[:7]}."
    )


def test_a_new_commit_that_came_in_part_does_not_hide_the_old(hub, tiny_folder, other_folder):
    old = hub.publish(NAME, tiny_folder)
    fetch_model(REPO)
    changed = (other_folder / "model.safetensors").read_bytes() + b" "
    hub.publish(NAME, contents(other_folder) | {"model.safetensors": changed})
    hub.fault("GET", "/large/", status=404)
    with pytest.raises(HubError):
        fetch_model(REPO)
    assert fetch_model(REPO, local_files_only=True).name == old


def test_is_cached_makes_no_request(hub, tiny_folder, monkeypatch):
    monkeypatch.setenv("SPLITZOO_HUB_NAMESPACE", "org")
    hub.publish(NAME, tiny_folder)
    assert not is_cached("tiny")
    assert sorted(contents(fetch_model(REPO, config_only=True))) == ["config.json"]
    assert hub.seen("model.safetensors") == []
    assert not is_cached("tiny")
    fetch_model(REPO)
    hub.requests.clear()
    assert is_cached("tiny")
    assert is_cached(NAME)
    assert not is_cached(f"{NAME}@v2")
    assert hub.requests == []
    (weights,) = Path(constants.HF_HUB_CACHE).glob("*/snapshots/*/model.safetensors")
    weights.resolve().unlink()
    assert not is_cached(NAME)


# Downloads that are cut, and several at once


def test_a_cut_download_goes_on_where_it_stopped(hub, tiny_folder, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept; else of 10 MiB
    hub.publish(NAME, tiny_folder)
    hub.fault("GET", "/large/", cut_after=10_999)
    hub.fault("GET", "/large/", cut_after=5_000)
    assert contents(fetch_model(REPO)) == contents(tiny_folder)
    ranges = [r.headers.get("range") for r in hub.requests if r.path.startswith("/large/")]
    assert ranges == [None, "bytes=10000-", "bytes=15000-"]


@pytest.mark.slow
def test_two_processes_at_once_end_with_one_good_copy(hub, tiny_folder, tmp_path):
    hub.publish(NAME, tiny_folder)
    hub.fault("GET", "/large/", times=2, piece_delay_s=0.3)
    program = (
        "from splitzoo.zoo.hub import fetch_model, parse_repo\n"
        f"print(fetch_model(parse_repo({NAME!r})))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=without_hub(os.environ) | hub.environment(tmp_path / "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert contents(Path(results[0][0].strip())) == contents(tiny_folder)
    blobs = list((tmp_path / "home").glob("hub/*/blobs/*"))
    assert len(blobs) == 2
    assert len(hub.seen("GET /large/")) == 1
