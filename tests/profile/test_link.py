"""The time over a link: two processes, a paced socket, and what is beside it."""

import json
import statistics

import pytest
from PIL import Image

from splitrun import Device, open_bundle
from splitzoo.profile.link.halves import STAGES


@pytest.fixture(scope="module")
def report(tiny_bundle, photos, tmp_path_factory):
    """The report and folder of two photographs over 200 kbit/s, round trip 40 ms."""
    from splitrun.sending.links import read_link
    from splitzoo.profile.link.plot import draw_link
    from splitzoo.profile.link.run import measure_link

    link = read_link("200kbps")
    found = measure_link(tiny_bundle, photos[:2], link, rtt_ms=40, codecs=("jpeg",), threads=1)
    folder = tmp_path_factory.mktemp("link")
    draw_link(found, folder)
    found.save(folder / "link.json")
    return found, folder


def test_a_link_takes_as_long_as_it_must(report, tiny_bundle, photos) -> None:
    found, _ = report
    device = Device(open_bundle(tiny_bundle))
    sizes = [len(device.encode_image(photo)) for photo in photos[:2]]
    assert [way.name for way in found.ways] == ["split", "jpeg", "whole network on the device"]
    split, jpeg, whole = found.ways
    assert split.bytes_mean == statistics.fmean(sizes)
    # 200 kbit/s are 25 bytes a millisecond; and the round trip.
    assert split.stages["air"].mean_ms >= split.bytes_mean / 25 + 40
    assert jpeg.stages["air"].mean_ms >= jpeg.bytes_mean / 25 + 40
    assert whole.stages["air"].mean_ms >= 40
    assert whole.bytes_mean < 40
    for way in found.ways:
        parts = sum(way.stages[stage].mean_ms for stage in STAGES)
        assert way.stages["total"].mean_ms == pytest.approx(parts, abs=0.01)
    # The whole network agrees with itself, and JPEG was chosen to agree as often as the split one.
    assert whole.score == 1.0
    assert jpeg.score >= split.score or jpeg.quality == 95


def test_the_figure_and_the_file(report) -> None:
    found, folder = report
    names = ["link-dark.png", "link-dark.svg", "link.json", "link.png", "link.svg"]
    assert sorted(path.name for path in folder.iterdir()) == names
    document = json.loads((folder / "link.json").read_text())
    assert document["ways"][0]["stages"]["air"]["p50_ms"] == found.ways[0].stages["air"].p50_ms
    assert document["link"]["bits_per_second"] == 200_000
    drawn = (folder / "link.svg").read_text()
    assert f"jpeg, quality {found.ways[1].quality}" in drawn
    with Image.open(folder / "link.png") as image:
        assert image.width == 1210


def test_what_is_wrong_is_said(splitzoo, tiny_bundle, tmp_path) -> None:
    words = ("profile", "link", tiny_bundle, "--images", tmp_path)
    code, _, err = splitzoo(*words, "--link", "fast")
    assert (code, "'fast' is neither a link nor a rate" in err) == (1, True)
    code, _, err = splitzoo(*words, "--link", "lora")
    assert (code, "no file in it has the name of an image" in err) == (1, True)


@pytest.mark.slow
def test_image_codecs_send_to_the_teacher_whose_weights_are_at_hand() -> None:
    from splitzoo import zoo
    from splitzoo.profile.link.run import _whole
    from splitzoo.progress import SILENT

    with _whole(zoo.DEFAULT_MODEL, None, SILENT) as folder:
        assert folder
        assert open_bundle(folder).name == "tf_efficientnet_lite0-png"
