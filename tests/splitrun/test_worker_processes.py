"""Signals while processes start: they wait, whichever thread is given them."""

import subprocess
import sys

import pytest

_SCRIPT = """
import os, signal, threading, time
from splitrun.worker_processes import starting_workers

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts this may ignore it
threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
try:
    with starting_workers():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        print("waited")
except KeyboardInterrupt:
    print("handled")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no masks of signals")
def test_signals_wait_while_processes_start() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["waited", "handled", "True", "set()"], "")
