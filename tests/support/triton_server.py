"""Triton Inference Server as a process, from the wheel of nvidia-pytriton.

`make servers` installs it; it has the Python backend alone.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PYTHON = Path(__file__).parents[2] / "build/servers/triton/bin/python"


@dataclass
class TritonServer:
    """A server that runs."""

    port: int
    process: subprocess.Popen

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def triton_server(repository: Path, folder: Path, python: Path = PYTHON) -> Iterator[TritonServer]:
    """Start Triton on a free port, with its log in a folder, and end it."""
    say = "import sysconfig as s; print(s.get_path('purelib'), s.get_config_var('LIBDIR'))"
    say += "; print(s.get_python_version())"
    done = subprocess.run([python, "-c", say], capture_output=True, text=True, check=True)
    packages, library, version = done.stdout.split()
    installed = Path(packages, "pytriton", "tritonserver")
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = installed / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(installed / "backends" / "python").glob("*triton*"), stub):
        (backend / file.name).symlink_to(file)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [installed / "bin" / "tritonserver", f"--model-repository={repository}"]
    command += [f"--backend-directory={backend.parent}", f"--http-port={port}"]
    command += ["--http-address=127.0.0.1", "--allow-grpc=false", "--allow-metrics=false"]
    paths = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{library}:{packages}/nvidia_pytriton.libs",
    }
    log = folder / "triton.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=os.environ | paths, stdout=errors, stderr=errors)
    try:
        server = TritonServer(port, process)
        until = time.monotonic() + 180
        while not _is_ready(server.address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_ready(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/v2/health/ready", timeout=2) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
