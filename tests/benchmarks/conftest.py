"""What tests of the pages of ``benchmarks.matrix`` share."""

import pytest


@pytest.fixture
def matrix_command(capsys):
    """Run a command of ``benchmarks.matrix`` in this process: standard output and error."""
    from benchmarks.matrix.__main__ import app

    def run(*words: object) -> tuple[str, str]:
        app([str(word) for word in words], standalone_mode=False)
        return capsys.readouterr()

    return run
