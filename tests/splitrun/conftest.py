"""What tests of the runtime share."""

import tempfile

import pytest
from stand_in_programs import SOURCES, write_program

from splitrun.sending.spool import Spool


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A folder on PATH, a configuration for VTM, and a temporary folder that must stay empty."""
    folder, temporary = tmp_path / "bin", tmp_path / "with spaces; $(touch x) 'and' quotes"
    folder.mkdir()
    temporary.mkdir()
    (tmp_path / "intra.cfg").write_text("")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SPLITZOO_VTM_CONFIG", str(tmp_path / "intra.cfg"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for name, source in SOURCES.items():
        write_program(folder, name, source)
    yield folder
    assert list(temporary.iterdir()) == []


@pytest.fixture
def spool(tmp_path):
    """An empty spool of at most 10 kB."""
    made = Spool(tmp_path / "spool", 10_000)
    yield made
    made.release()
