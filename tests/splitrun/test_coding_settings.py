"""Coders without tables: made from settings, which a hostile manifest may hold."""

import numpy as np
import pytest

from splitrun.coding import CODERS, load_coder, save_coder
from splitrun.coding.features import FeaturesCoder
from splitrun.coding.pixels import PixelsCoder
from splitrun.coding.quantised import QuantisedCoder
from splitrun.errors import TablesError

EXAMPLES = {
    "pixels": (PixelsCoder("webp", 40), PixelsCoder("webp", 4), PixelsCoder("jpeg", 40)),
    "features": (
        FeaturesCoder("webp", 40, 5),
        FeaturesCoder("jpeg", 40, 5),
        FeaturesCoder("webp", 4, 5),
        FeaturesCoder("webp", 4, 55),
    ),
    "quantised": (QuantisedCoder(3), QuantisedCoder(4)),
}
FACTS = {
    "pixels": ({"codec": "webp", "quality": 40}, False, 3),
    "features": ({"codec": "webp", "quality": 40, "channels": 5}, False, 5),
    "quantised": ({"channels": 3, "bits": 8}, True, 3),
}
CHANNELS = [{"channels": wrong} for wrong in (0, -1, True, "3", 3.0, (1 << 16) + 1)]
QUALITIES = [{"quality": wrong} for wrong in (101, -1, "50", 5.0, True, None, 10**30)]
CODECS = [{"codec": wrong} for wrong in ("", "JPEG", "../jpeg", 7, None, ["jpeg"])]
CHANGES = {
    "pixels": [
        *CODECS,
        *QUALITIES,
        {"codec": "bpg", "quality": 52},
        {"codec": "vtm", "quality": 64},
    ],
    "features": [*CODECS, *QUALITIES, *CHANNELS, {"codec": "avif"}],
    "quantised": [*CHANNELS, {"bits": 4}, {"bits": 8.0}],
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_coder_comes_back_from_its_settings(tmp_path, kind):
    coder, *others = EXAMPLES[kind]
    assert (coder.settings(), coder.lossless, coder.channels) == FACTS[kind]
    assert (coder.kind, coder.arrays(), coder.array_names()) == (kind, {}, ())
    save_coder(coder, tmp_path / "tables.npz")
    loaded = load_coder(kind, coder.settings(), tmp_path / "tables.npz")
    assert type(loaded) is type(coder) is CODERS[kind]
    assert (loaded.settings(), loaded.digest()) == (coder.settings(), coder.digest())
    digests = {one.digest() for one in (coder, *others)}
    assert len(digests) == 1 + len(others)
    assert {len(digest) for digest in digests} == {32}


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, change) for kind, changes in CHANGES.items() for change in (*changes, {"more": 1})],
)
def test_hostile_settings_are_refused(kind, change):
    with pytest.raises(TablesError):
        CODERS[kind].from_parts(EXAMPLES[kind][0].settings() | change, {})


@pytest.mark.parametrize("kind", EXAMPLES)
def test_settings_that_lack_a_part_and_tables_are_refused(kind):
    settings = EXAMPLES[kind][0].settings()
    for missing in settings:
        rest = {name: value for name, value in settings.items() if name != missing}
        with pytest.raises(TablesError, match="has the settings"):
            CODERS[kind].from_parts(rest, {})
    with pytest.raises(TablesError, match="no tables"):
        CODERS[kind].from_parts(settings, {"cdf": np.zeros(1)})
