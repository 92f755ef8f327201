import hashlib
import os
import stat
import subprocess
import sys

import pytest

from splitrun.errors import OutputError
from splitrun.files import check_free, new_file, new_folder, sha256_file


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "a" / "b"
    for replaced in (False, True):  # in the second turn an empty folder
        with new_folder(target) as temporary:
            (temporary / "file").write_text("x")
            assert target.exists() is replaced
        assert everything_in(tmp_path) == ["a", "a/b", "a/b/file"]
        (target / "file").unlink()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_new_folder_does_not_appear_when_the_block_raises(tmp_path, error):
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "out", tmp_path / "a" / "b" / "out", tmp_path / "empty"):
        with pytest.raises(error), new_folder(target) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / "file").write_text("x")
            raise error
        assert everything_in(tmp_path) == ["empty"]


def test_a_folder_that_holds_something_is_refused_before_the_block_runs(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(OutputError, match="not empty") as caught, new_folder(tmp_path / "out"):
        pytest.fail("the block ran")
    assert caught.value.path == tmp_path / "out"
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    assert everything_in(tmp_path) == ["out", "out/mine"]


def test_a_folder_that_is_filled_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(OutputError, match="not empty"), new_folder(tmp_path / "out") as temporary:
        (temporary / "file").write_text("new")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("kept")
    assert everything_in(tmp_path) == ["out", "out/mine"]


def test_a_file_or_link_in_the_way_of_a_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        with pytest.raises(OutputError, match="a file of that name exists"):
            check_free(tmp_path / name)
        with (
            pytest.raises(OutputError, match="a file of that name exists"),
            new_folder(tmp_path / name),
        ):
            pytest.fail("the block ran")
    assert (tmp_path / "out").read_text() == "kept"


# Root may write anywhere, so a path below a regular file stands for one that cannot be written.
@pytest.mark.parametrize("make", [new_folder, new_file])
def test_a_path_below_a_regular_file_is_an_output_error(tmp_path, make):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError) as caught, make(tmp_path / "file" / "deep" / "out"):
        pytest.fail("the block ran")
    assert caught.value.next_step.startswith("Nothing was left behind.")
    assert isinstance(caught.value.__cause__, OSError)
    assert everything_in(tmp_path) == ["file"]


# A limit on the size of files stands for a full disk: both fail in the middle of a write.
@pytest.mark.parametrize(
    ("make", "write"),
    [("new_folder", "(new / 'file').write_bytes(data)"), ("new_file", "new.write_bytes(data)")],
)
def test_a_write_that_fails_half_way_leaves_nothing(tmp_path, make, write):
    program = f"""
import resource, sys
from pathlib import Path
from splitrun.errors import OutputError
from splitrun.files import {make}
data = bytes(1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with {make}(Path(sys.argv[1])) as new:
        {write}
except OutputError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"Cannot write {tmp_path / 'out'}: file too large.\n"
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_is_new_has_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "folder"), new_file(tmp_path / "file") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert permissions(tmp_path / "folder") == 0o777 & ~umask
    assert permissions(tmp_path / "file") == 0o666 & ~umask


def test_a_new_file_takes_the_place_of_the_old_one_when_the_block_ends(tmp_path):
    target = tmp_path / "a" / "file"
    target.parent.mkdir()
    target.write_text("old")
    with new_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert everything_in(tmp_path) == ["a", "a/file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_the_block_raises(tmp_path, error):
    (tmp_path / "file").write_text("old")
    with pytest.raises(error), new_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert everything_in(tmp_path) == ["file"]


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    with pytest.raises(OutputError, match="it is a folder"), new_file(tmp_path):
        pytest.fail("the block ran")


def test_sha256_is_of_the_whole_content(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
