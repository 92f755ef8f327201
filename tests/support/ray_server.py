"""The edge server on a Ray cluster, as users start it; `make servers` installs Ray."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from free_port import free_port
from other_servers import wait_until_ready

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build/servers/ray/bin/python"


@dataclass
class RayServer:
    """A server that runs.

    Attributes:
        port: Port that Ray's proxy listens on.
        process: ``serve run``, whose children are the cluster.
        log: File of what they say.
    """

    port: int
    process: subprocess.Popen
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def replicas(self, name: str) -> set[int]:
        """Return the process ids of the replicas of a deployment that have answered."""
        pattern = rf"ServeReplica:edge:{re.escape(name)} pid=(\d+).* CALL answer OK"
        return {int(pid) for pid in re.findall(pattern, self.log.read_text())}


@contextlib.contextmanager
def ray_server(
    folder: Path,
    arguments: dict[str, Any],
    deployments: list[dict[str, Any]] | None = None,
    python: Path = PYTHON,
) -> Iterator[RayServer]:
    """Start a cluster with the server by ``serve run``, and end both.

    Args:
        folder: Folder for its settings and log.
        arguments: Arguments of ``splitrun.serving.ray_serve:edge``.
        deployments: Settings of Ray's for single deployments.
        python: Python of the environment that has Ray.
    """
    port = free_port()
    application = {
        "name": "edge",
        "import_path": "splitrun.serving.ray_serve:edge",
        "args": arguments,
    }
    settings = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application | {"args": arguments, "deployments": deployments or []}],
    }
    (folder / "ray.yaml").write_text(json.dumps(settings))
    own = {
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": "local",  # not a cluster of the user's
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    log = folder / "ray.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [python.with_name("serve"), "run", folder / "ray.yaml"],
            env=os.environ | own,
            stdout=said,
            stderr=said,
        )
    try:
        server = RayServer(port, process, log)
        wait_until_ready(f"{server.address}/readyz", process, log, seconds=300)
        yield server
    finally:
        process.terminate()
        process.wait(120)
