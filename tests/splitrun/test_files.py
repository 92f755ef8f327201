import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

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
    with new_file(target, force=True) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert everything_in(tmp_path) == ["a", "a/file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_the_block_raises(tmp_path, error):
    (tmp_path / "file").write_text("old")
    with pytest.raises(error), new_file(tmp_path / "file", force=True) as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert everything_in(tmp_path) == ["file"]


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    with pytest.raises(OutputError, match="it is a folder"), new_file(tmp_path):
        pytest.fail("the block ran")


# Files that exist


def test_a_file_that_exists_is_replaced_by_force_alone_and_keeps_its_permissions(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o640)
    with pytest.raises(OutputError, match="exists") as caught, new_file(tmp_path / "file"):
        pytest.fail("the block ran")
    assert "--force" in caught.value.next_step
    with new_file(tmp_path / "file", force=True) as temporary:
        temporary.write_text("new")
    assert ((tmp_path / "file").read_text(), permissions(tmp_path / "file")) == ("new", 0o640)
    with pytest.raises(OutputError, match="exists"), new_file(tmp_path / "other") as temporary:
        (tmp_path / "other").write_text("made meanwhile")
    assert (tmp_path / "other").read_text() == "made meanwhile"


@pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_to_its_file(tmp_path, there):
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "file").write_text("old")
    (tmp_path / "second").symlink_to("far/file")
    (tmp_path / "first").symlink_to("second")
    with new_file(tmp_path / "first", force=there) as temporary:
        assert temporary.parent == tmp_path / "far"
        temporary.write_text("new")
    assert (tmp_path / "far" / "file").read_text() == "new"
    assert (tmp_path / "first").readlink().name == "second"
    assert everything_in(tmp_path) == ["far", "far/file", "first", "second"]


def test_links_that_lead_to_one_another_are_an_output_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="levels of symbolic links"), new_file(tmp_path / "a"):
        pytest.fail("the block ran")


def device(path, kind, major, minor):
    """Make a device node of its own: none of the machine's is ever put at risk."""
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
    except (AttributeError, OSError) as error:
        pytest.skip(f"making device nodes is not allowed here: {error}")
    return path


def test_a_device_is_written_to_and_stays_one(tmp_path):
    null, full = tmp_path / "null", tmp_path / "full"
    device(null, stat.S_IFCHR, 1, 3)
    with new_file(null) as temporary:
        temporary.write_bytes(bytes(100))
    device(full, stat.S_IFCHR, 1, 7)
    with pytest.raises(OutputError, match="no space left"), new_file(full) as temporary:
        temporary.write_bytes(bytes(100))
    for path in (null, full):
        assert stat.S_ISCHR(path.stat().st_mode)
    assert everything_in(tmp_path) == ["full", "null"]


def test_a_block_device_and_a_socket_are_refused(tmp_path):
    device(tmp_path / "disk", stat.S_IFBLK, 7, 250)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    for name, kind in (("disk", "block device"), ("socket", "socket")):
        with (
            pytest.raises(OutputError, match=f"it is a {kind}"),
            new_file(tmp_path / name, force=True),
        ):
            pytest.fail("the block ran")
    assert everything_in(tmp_path) == ["disk", "socket"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
def test_a_pipe_gets_everything_once_a_reader_is_there(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    content = bytes(range(256)) * 1000
    with new_file(tmp_path / "link") as temporary:
        temporary.write_bytes(content)
    reader.join(30)
    assert got == [content]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_to_and_not_replaced(tmp_path, name):
    program = f"""
from pathlib import Path
from splitrun.files import new_file
print("before")
with new_file(Path({name!r})) as temporary:
    temporary.write_text("content\\n")
print("after")
"""
    (tmp_path / "log").write_text("kept\n")
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", program], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "kept\nbefore\ncontent\nafter\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "before\ncontent\nafter\n"
    assert Path("/dev/stdout").is_symlink()


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    with new_file(tmp_path / ("x" * 255)) as temporary:
        temporary.write_text("x")
    with new_folder(tmp_path / ("y" * 255)):
        pass
    assert everything_in(tmp_path) == ["x" * 255, "y" * 255]


# Folders that exist


def test_by_force_a_folder_gets_what_is_new_and_keeps_what_is_not(tmp_path):
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / "parts" / "old").write_text("old")
    (out / "mine").write_text("kept")
    (out / "file").write_text("old")
    out.chmod(0o750)
    (tmp_path / "link").symlink_to("out")
    identity = out.stat().st_ino
    with new_folder(tmp_path / "link", force=True) as temporary:
        (temporary / "parts").mkdir()
        (temporary / "parts" / "new").write_text("new")
        (temporary / "file").write_text("new")
        assert (out / "file").read_text() == "old"
    assert everything_in(out) == ["file", "mine", "parts", "parts/new"]
    assert (out / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    # The same folder: a mount point, or somebody's current one.
    assert (out.stat().st_ino, permissions(out)) == (identity, 0o750)


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_folder_that_cannot_be_filled_is_as_it_was(tmp_path, monkeypatch, failing):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("b", "c"):
        (out / name).write_text("old")
    rename, calls = type(out).rename, []

    def fail(self, target):
        calls.append(self)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(out), "rename", fail)
    with pytest.raises(OutputError, match="input/output error"), new_folder(out, force=True) as new:
        for name in ("a", "b", "c"):
            (new / name).write_text("new")
    assert everything_in(out) == ["b", "c"]
    assert {(out / name).read_text() for name in ("b", "c")} == {"old"}


def test_sha256_is_of_the_whole_content(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
