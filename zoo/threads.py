"""How the threads of PyTorch wait for one another."""

import os


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep where they wait; call it before PyTorch is imported.

    By default they keep their cores busy for milliseconds at each meeting, thousands of times in a
    step. Where another process wants the cores, such as those that read images, the thread that is
    waited for cannot run: training took four times as long, and five times the processor. What
    the user sets stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
