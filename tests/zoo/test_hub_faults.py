"""What goes wrong between a model and the Hub: each has its own message, in bounded time."""

import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest
from commands import disk_of
from hub_server import READER
from huggingface_hub import constants

from splitrun.errors import HubError, WeightsNotFoundError
from splitzoo.zoo.hub import fetch_model
from splitzoo.zoo.hub_names import Repo

NAME = "org/tiny"
REPO = Repo(NAME)
CONFIG, WEIGHTS = "config.json", "model.safetensors"
ALWAYS = 99
BOUND_S = 55


@pytest.fixture
def published(hub, tiny_folder):
    hub.publish(NAME, tiny_folder)
    return hub


def refused(saying, *, repo=REPO, next_step="", error=HubError, **options):
    """Fetch, and hold the error to what it is to say; secrets are not part of it."""
    with pytest.raises(error) as caught:
        fetch_model(repo, **options)
    message, advice = caught.value.message, caught.value.next_step
    assert saying in message
    assert next_step in advice
    assert message.count("\n") == 0
    assert "hf_" not in f"{message} {advice}"
    return message


# Repositories


def test_a_repository_that_does_not_exist_or_is_private(hub, tiny_folder):
    said = refused("no such repository, or it is private", next_step="hf auth login")
    assert said.startswith("Cannot fetch org/tiny: ")
    assert refused("no such repository, or it is private", token=READER) == said
    hub.publish(NAME, tiny_folder, private=True)
    assert refused("or it is private", next_step="hf auth login") == said


def test_weights_of_a_registered_model_that_nobody_published(hub):
    message = refused(
        "No weights for a-model: ",
        repo=Repo("splitzoo/a-model"),
        error=WeightsNotFoundError,
        next_step='zoo.load("a-model", pretrained=False)',
    )
    assert f"{hub.url}/splitzoo/a-model does not exist" in message


def test_a_gated_repository_a_missing_revision_and_a_missing_file(hub, tiny_folder):
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    hub.publish("org/gated", files, gated=True)
    ask = f"Ask for access at {hub.url}/org/gated"
    for token in (None, READER):
        refused("it is gated", repo=Repo("org/gated"), next_step=ask, token=token)
    hub.publish(NAME, files)
    there = f"{hub.url}/org/tiny/tree/main"
    refused("org/tiny has no revision 'v9'", repo=Repo(NAME, "v9"), next_step=there)
    for missing in (CONFIG, WEIGHTS):
        repository = f"org/without-{missing}"
        hub.publish(repository, {name: files[name] for name in files.keys() - {missing}})
        said = f"{repository} is no saved model of splitzoo: it has no {missing}"
        refused(said, repo=Repo(repository))
    assert hub.seen("GET /large/") == []


NO_CONFIGS = (b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000)


@pytest.mark.parametrize(
    ("changes", "saying", "next_step"),
    [
        ({"library_name": "transformers"}, "its config.json is another library's", ""),
        ({"format_version": 9}, "has format_version 9", "pip install --upgrade splitzoo"),
        ({"weights_sha256": "0"}, "is no valid model config: weights_sha256", ""),
        *((content, "Cannot use org/tiny: ", "") for content in NO_CONFIGS),
    ],
)
def test_a_config_that_cannot_be_used_spares_the_weights(
    hub, tiny_folder, changes, saying, next_step
):
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
    if isinstance(changes, dict):
        changes = json.dumps(json.loads(files[CONFIG]) | changes).encode()
    hub.publish(NAME, files | {CONFIG: changes})
    assert "org/tiny" in refused(saying, next_step=next_step)
    with pytest.raises(HubError, match="org/tiny"):
        fetch_model(REPO, config_only=True)
    assert hub.seen(WEIGHTS) == []
    # Nor is a config of gigabytes downloaded.
    hub.requests.clear()
    hub.fault("HEAD", CONFIG, headers={"Content-Length": str(1 << 32)})
    refused("org/tiny is no saved model of splitzoo: its config.json has 4294967296 bytes")
    assert hub.seen("GET") == []


# Answers


def test_a_token_that_is_none(published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_é")
    for given in ({}, *({"token": token} for token in ("", "hf_a b", "hf_a\n", "hf_é"))):
        refused("The token is empty or holds characters", **given)
    assert published.requests == []
    refused("the Hub does not accept the token", token="hf_unknown", next_step="hf auth login")


DISABLED = {"X-Error-Message": "Access to this resource is disabled."}
ELSEWHERE = {"Location": "http://127.0.0.1:9/login"}
ANOTHER_REFUSAL = {"X-Error-Message": "not today"}


@pytest.mark.parametrize(
    ("answer", "saying", "next_step"),
    [
        ({"status": 403, "headers": DISABLED}, "it was disabled", ""),
        *(
            ({"status": status, "headers": ANOTHER_REFUSAL}, f"(status {status}): not today", "")
            for status in (400, 404, 418)
        ),
        ({"status": 302, "headers": ELSEWHERE}, "is not the Hub", "HF_ENDPOINT"),
        ({"status": 200, "body": b"<html>Our terms</html>"}, "is not the Hub", "HF_ENDPOINT"),
    ],
)
def test_a_refusal_and_what_is_not_the_hub(published, answer, saying, next_step):
    published.fault("HEAD", CONFIG, **answer)
    message = refused(saying, next_step=next_step)
    host = published.url.removeprefix("http://")
    assert not next_step or f"what answers at {host} is not the Hub" in message


@pytest.mark.parametrize("token", [READER, "of-another-kind"])
def test_a_server_that_repeats_the_token_is_not_repeated(published, token):
    said = {"X-Error-Message": f"{token} may not, nor may hf_another or Bearer abc\x07def"}
    published.fault("HEAD", CONFIG, status=403, headers=said)
    message = refused("the token lacks the right to read it", token=token)
    assert message.endswith("(… may not, nor may … or Bearer … def).")


PLACES = ("/main/config.json", "/config.json", WEIGHTS, "/large/")


@pytest.mark.parametrize(
    ("place", "headers", "next_step"),
    [
        *((place, {}, "Try again in some minutes.") for place in PLACES),
        (PLACES[0], {"Retry-After": "3600"}, "Try again in 3600 s."),
        (PLACES[3], {"Retry-After": "3600"}, "Try again in 3600 s."),
        (WEIGHTS, {"Retry-After": "7"}, "Try again in 7 s."),
        (WEIGHTS, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Try again in some minutes."),
        (WEIGHTS, {"ratelimit": '"api";r=0;t=55'}, "Try again in 55 s."),
        (WEIGHTS, {"ratelimit": '"api";r=0;t=55', "Retry-After": "7"}, "Try again in 55 s."),
    ],
)
def test_too_many_requests(published, place, headers, next_step):
    for method in ("HEAD", "GET"):
        published.fault(method, place, times=ALWAYS, status=429, headers=headers)
    refused("too many requests", next_step=next_step)
    assert sum(published.waits) <= BOUND_S
    if "55" in next_step or "3600" in next_step or "main" in place:
        assert published.waits == []


def test_a_short_wait_that_the_hub_asks_for_is_waited(published):
    published.fault("GET", "/large/", status=429, headers={"Retry-After": "4"})
    assert fetch_model(REPO).is_dir()
    assert published.waits == [5]


@pytest.mark.parametrize(("place", "status"), [*zip(PLACES, (500, 502, 503, 504), strict=True)])
def test_a_hub_that_does_not_work(published, place, status):
    for method in ("HEAD", "GET"):
        published.fault(method, place, times=ALWAYS, status=status)
    refused(f"the Hub is not working (status {status})", next_step="Try again later")
    assert sum(published.waits) <= 23
    if place == "/main/config.json":
        assert len(published.requests) == 1
    published.faults.clear()
    published.waits.clear()
    published.fault("HEAD", WEIGHTS, times=ALWAYS, status=503, headers={"Retry-After": "3600"})
    refused("the Hub is not working (status 503)")
    assert published.waits == []
    published.faults.clear()
    published.fault("HEAD", WEIGHTS, times=3, status=500)
    assert fetch_model(REPO).is_dir()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_no_outage_even_where_the_cache_has_the_model(published, status):
    fetch_model(REPO)
    published.fault("HEAD", CONFIG, times=ALWAYS, status=status)
    with pytest.raises(HubError):
        fetch_model(REPO)


# Connections


def test_a_connection_that_is_refused(hub, monkeypatch):
    hub.close()
    refused("refuses connections", next_step="HF_ENDPOINT")
    assert hub.waits == []
    # A password in the address is not repeated.
    address = hub.url.replace("//", "//user:secret@")
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        patched = getattr(constants, name).replace(hub.url, address)
        monkeypatch.setattr(constants, name, patched)
    assert "secret" not in refused("refuses connections")


def test_a_name_that_nobody_knows(hub, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    refused("the address of 127.0.0.1", next_step="Is there a network?")
    assert hub.waits == []


def test_an_endpoint_that_is_no_address(hub, monkeypatch):
    for endpoint in ("", "huggingface.co", "ftp://x", "http://", "/hub"):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        refused(f"HF_ENDPOINT is {endpoint}", next_step="https://huggingface.co")


@pytest.mark.parametrize(
    ("method", "place"), [("HEAD", CONFIG), ("HEAD", WEIGHTS), ("GET", "/large/")]
)
def test_a_hub_that_does_not_answer(published, monkeypatch, method, place):
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.1)
    published.fault(method, place, times=ALWAYS, delay_s=60)
    start = time.monotonic()
    refused("did not answer in time", next_step="HF_HUB_ETAG_TIMEOUT" if place == CONFIG else "")
    assert time.monotonic() - start < 5
    assert sum(published.waits) <= (0 if place == CONFIG else 23)


@pytest.mark.parametrize(
    ("method", "place", "fault"),
    [
        ("GET", "config.json", {"cut_after": 50}),
        ("GET", "/large/", {"cut_after": 50}),
        ("HEAD", "/main/config.json", {"hang_up": True}),
        ("HEAD", WEIGHTS, {"hang_up": True}),
    ],
)
def test_a_connection_that_is_cut_again_and_again(published, method, place, fault):
    published.fault(method, place, times=ALWAYS, **fault)
    refused("was cut", next_step="Try again.")
    assert sum(published.waits) <= 23
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    published.faults.clear()
    assert fetch_model(REPO).is_dir()


# Contents


def test_weights_that_are_not_those_of_the_config_are_removed(published, tiny_folder):
    content = (tiny_folder / WEIGHTS).read_bytes()
    for length in (content[:-1], content + b"x"):
        published.fault("GET", "/large/", times=ALWAYS, body=length)
        refused("Cannot fetch org/tiny: a file came with another length than announced.")
        assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
        published.faults.clear()
    for changed in (bytes([content[0] ^ 1]) + content[1:], bytes(len(content))):
        published.fault("GET", "/large/", body=changed)
        refused("model.safetensors was changed or damaged", next_step="Try again")
        assert not list(Path(constants.HF_HUB_CACHE).glob("*/blobs/*"))
    assert (fetch_model(REPO) / WEIGHTS).read_bytes() == content


def test_weights_that_changed_in_the_cache_are_fetched_anew(published, tiny_folder):
    weights = fetch_model(REPO) / WEIGHTS
    weights.write_bytes(b"bit rot")
    refused("was changed or damaged", next_step="removed from the cache", local_files_only=True)
    assert (fetch_model(REPO) / WEIGHTS).read_bytes() == (tiny_folder / WEIGHTS).read_bytes()


# Disks


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_disk_that_is_full(published):
    fetch_model(REPO, config_only=True)
    with disk_of(100_000):
        refused("no space is left", next_step="hf cache ls")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    assert fetch_model(REPO).is_dir()


def test_a_cache_that_may_not_be_written(published, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    refused("not a directory", cache_dir=tmp_path / "file" / "cache", next_step="--cache-dir")
    for number in (errno.EACCES, errno.EROFS):

        def fail(path, *_, number=number, **__):
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr("huggingface_hub.file_download.os.makedirs", fail)
        refused(f"{constants.HF_HUB_CACHE}/", next_step="--cache-dir")
        refused(": it may not be read or written.", next_step="HF_HOME")


def test_a_read_only_cache_that_holds_the_model_is_used(published, tiny_folder, monkeypatch):
    folder = fetch_model(REPO)
    published.repositories[NAME].refs["v1"] = folder.name

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("splitrun.files.tempfile.mkstemp", fail)
    assert fetch_model(Repo(NAME, "v1")) == folder
