"""The edge server as a process, as users start it."""

import contextlib
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STREAM = {"Content-Type": "application/octet-stream"}
BATCH = {"Content-Type": "application/x-splitrun-batch"}


@dataclass
class EdgeServer:
    """A server that runs.

    Attributes:
        address: Where it listens, such as http://127.0.0.1:4711.
        process: The process.
        log: File of what it logs.
    """

    address: str
    process: subprocess.Popen
    log: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def logged(self, text: str, seconds: float = 20) -> str:
        """Wait until the log holds a text, and return the log."""
        until = time.monotonic() + seconds
        while text not in (log := self.log.read_text()):
            assert time.monotonic() < until, log
            time.sleep(0.02)
        return log

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(30)


@contextlib.contextmanager
def edge_server(folder: Path, *words: object) -> Iterator[EdgeServer]:
    """Start ``splitrun serve`` on a free port, with its log in a folder; kill it at the end."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "splitrun", "serve", "--port", "0", *map(str, words)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        said = next((line for line in lines if line.startswith("Serving on ")), "")
        assert said, log.read_text()
        yield EdgeServer(said.split()[-1], process, log)
    finally:
        process.kill()
        process.communicate()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that nobody else has signed; return it and its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl, to make a certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def batch(*streams: bytes) -> bytes:
    """Return the body of several streams, each after its length."""
    return b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)
