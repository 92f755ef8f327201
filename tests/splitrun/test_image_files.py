import sys

import pytest

from splitrun.errors import ImageError
from splitrun.image_files import Unread, count_unread, find_images, list_images

KNOWN = (
    *("a.jpeg", "b.PNG", "deep/c.webp", "d.avif", "e.gif", "f.jp2", "g.tga", "h.tif", "i.bmp"),
    *("j.ppm", "k.qoi", "l.jfif", "m.mpo", "n.TIFF", "o.pgm", "p.psd"),
)


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_of_a_folder_are_listed_in_order(tmp_path):
    put(tmp_path, *reversed(KNOWN))
    assert list_images(tmp_path) == sorted(tmp_path / name for name in KNOWN)
    with pytest.raises(ImageError, match="it is not a folder"):
        list_images(tmp_path / "a.jpeg")


def test_what_is_not_read_is_counted_by_reason_and_ending(tmp_path):
    put(tmp_path, "a.eps", "b/c.EPS", "notes.txt", "README", "x.svg")
    found = find_images(tmp_path)
    assert found.images == []
    assert [file.name for file in found.unread] == [
        "README",
        "a.eps",
        "b/c.EPS",
        "notes.txt",
        "x.svg",
    ]
    assert [str(count) for count in count_unread(found.unread)] == [
        "2 .eps: no image format that is read",
        "1 without an ending: no image format that is read",
        "1 .svg: no image format that is read",
        "1 .txt: no image format that is read",
    ]
    with pytest.raises(ImageError, match=r"name of an image \(2 \.eps: no image format") as caught:
        list_images(tmp_path)
    assert caught.value.path == tmp_path


def test_details_of_one_file_do_not_part_a_count():
    cut = [Unread(f"{left}.jpg", f"it is damaged ({left} bytes left)") for left in range(3)]
    (counted,) = count_unread([*cut])
    assert (counted.reason, counted.suffix, counted.files) == ("it is damaged", ".jpg", 3)


def test_heic_is_read_where_its_package_is(tmp_path, monkeypatch):
    put(tmp_path, "a.heic", "b.HEIF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert len(list_images(tmp_path)) == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert {file.reason for file in find_images(tmp_path).unread} == {
        "HEIC needs the package pillow-heif, which is not installed"
    }


# What macOS, Windows and Synology leave beside photographs.
def test_hidden_and_systems_files_are_ignored(tmp_path):
    folder = tmp_path / ".hidden parent"
    put(folder, "a.jpg", "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".git/b.jpg")
    put(folder, "__MACOSX/._a.jpg", "__MACOSX/c.jpg", "@eaDir/a.jpg/x.jpg", "$RECYCLE.BIN/d.jpg")
    found = find_images(folder)
    assert (found.images, found.unread) == ([folder / "a.jpg"], [])


def test_links_are_followed_once_and_nothing_but_files_is_opened(tmp_path):
    os = pytest.importorskip("posix", reason="needs links and pipes of POSIX")
    put(tmp_path, "elsewhere/a.jpg", "data/b.jpg")
    data = tmp_path / "data"
    (data / "class").symlink_to(tmp_path / "elsewhere")
    (data / "class" / "back").symlink_to(data)
    (data / "gone.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(data / "pipe.png")
    found = find_images(data)
    assert found.images == [data / "b.jpg", data / "class/a.jpg"]
    assert [str(count) for count in count_unread(found.unread)] == [
        "1 .jpg: it is not a regular file",
        "1 .png: it is not a regular file",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    import os

    put(tmp_path, "a.jpg", "closed/b.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):  # root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match="closed: permission denied"):
        find_images(tmp_path)
