"""Sources of images: pipes, cameras, watched folders."""

import io
import os
import sys

import pytest
from PIL import Image

from splitrun.errors import DependencyError, ImageError
from splitrun.sending import sources as sources_module
from splitrun.sending.jpeg_frames import JpegFrames
from splitrun.sending.sources import WatchedFolder, at_most, camera, piped


def jpeg(size, comment=b""):
    content = io.BytesIO()
    Image.effect_noise(size, 50).save(content, "JPEG", comment=comment)
    return content.getvalue()


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content, step):
        self.content, self.step = io.BytesIO(content), step

    def read(self, size=-1):
        return self.content.read(min(size, self.step))


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_jpeg_files_in_a_pipe(step) -> None:
    # The comment of the second holds a whole JPEG, as a thumbnail would be.
    files = [jpeg((40, 30)), jpeg((16, 16), comment=jpeg((8, 8))), jpeg((64, 48))]
    between = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    assert list(JpegFrames(Trickle(between.join(files), step))) == files
    with pytest.raises(ImageError, match="frame 2: standard input ends within it"):
        list(JpegFrames(Trickle(files[0] + files[1][:-5], step)))
    assert list(JpegFrames(Trickle(b"", step))) == []
    with pytest.raises(ImageError, match="it holds no JPEG files"):
        list(JpegFrames(Trickle(bytes(500), step)))


def test_raw_frames_in_a_pipe() -> None:
    frames = os.urandom(2 * 3 * 4 * 2)
    shots = list(piped(Trickle(frames, 5), (4, 2)))
    assert [shot.image.tobytes() for shot in shots] == [frames[:24], frames[24:]]
    assert shots[0].image.shape == (2, 4, 3)
    with pytest.raises(ImageError, match=r"frame 2: standard input ends after 10 of its 24 bytes"):
        list(piped(Trickle(frames[:34], 5), (4, 2)))


def test_a_camera_gives_what_opencv_sees(tmp_path, monkeypatch) -> None:
    """OpenCV opens numbered files as it does a camera; it gives blue first, ``camera`` red."""
    pytest.importorskip("cv2", reason="needs opencv-python-headless")
    frames = [os.urandom(12 * 16 * 3) for _ in range(3)]
    for number, frame in enumerate(frames):
        Image.frombytes("RGB", (16, 12), frame).save(tmp_path / f"{number}.png")
    shots = camera(str(tmp_path / "%d.png"))
    assert [next(shots).image.tobytes() for _ in frames] == frames
    with pytest.raises(ImageError, match=r"nothing more after 3 frames\.\nWas it unplugged\?$"):
        next(shots)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="needs OpenCV"):
        next(camera("0"))


def test_at_most_so_many_a_second() -> None:
    now, shots = [0.0], []

    def frames():
        for number in range(20):
            now[0] = number / 10
            yield type("Frame", (), {"file": False, "number": number})

    shots = [shot.number for shot in at_most(frames(), 4, lambda: now[0])]
    assert shots == [0, 3, 5, 8, 10, 13, 15, 18]


def test_a_folder_is_watched_and_remembered(tmp_path) -> None:
    folder, memory = tmp_path / "photos", tmp_path / "watched"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg((8, 8)))
    watched = WatchedFolder(folder, memory, 0.01)
    shots = iter(watched)
    first = next(shots)
    watched.remember(first)
    (folder / "b.jpg").write_bytes(b"")
    second = next(shots)
    assert [first.image.name, second.image.name] == ["a.jpg", "b.jpg"]
    # Not remembered: a later run gives it again, under the same id.
    assert next(iter(WatchedFolder(folder, memory, 0.01))).id == second.id


def test_looks_at_a_large_folder_leave_time_for_other_work(tmp_path, monkeypatch) -> None:
    class Clock:
        """A clock after which each look takes a second."""

        now, pauses = 0.0, []

        def monotonic(self):
            self.now += 1
            return self.now

        def time(self):
            return self.now

        def sleep(self, seconds):
            self.pauses.append(seconds)
            if len(self.pauses) == 1:
                (tmp_path / "photos" / "a.jpg").write_bytes(b"x")

    (tmp_path / "photos").mkdir()
    watched = WatchedFolder(tmp_path / "photos", tmp_path / "watched", 0.5)
    monkeypatch.setattr(sources_module, "time", clock := Clock())
    next(iter(watched))
    assert clock.pauses == [10.0, 10.0]
