"""Servers of other projects, which take a while until they answer."""

import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


def wait_until_ready(url: str, process: subprocess.Popen, log: Path, seconds: float) -> None:
    """Wait until an address answers with 200; a server that ends or is late fails with its log."""
    until = time.monotonic() + seconds
    while not _is_ready(url):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
