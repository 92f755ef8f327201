"""Triton Inference Server as a process, from the wheel of nvidia-pytriton.

`make servers` installs it; it has the Python backend alone.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from free_port import free_port
from other_servers import wait_until_ready

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
    port = free_port()
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
        wait_until_ready(f"http://{server.address}/v2/health/ready", process, log, seconds=180)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
