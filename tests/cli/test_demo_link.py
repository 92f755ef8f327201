"""demo-link: a real server, a real sender, and a link between them."""

import json

import pytest


@pytest.mark.slow
def test_a_photograph_goes_over_the_link(splitzoo, tmp_path) -> None:
    pytest.importorskip("starlette", reason="needs the server: the extra serve")
    code, out, _ = splitzoo("demo-link", "-o", tmp_path / "link", "--json")
    said = json.loads(out)
    (sent,) = said["sent"]
    assert code == 0
    assert sent["answer"] == "dandelion"
    # 37.5 kbit/s are 4.6875 bytes a millisecond.
    assert sent["air_ms"] >= sent["sent_bytes"] / 4.6875
    assert sent["jpeg_bytes"] > 2 * sent["stream_bytes"]
    assert sorted(path.name for path in (tmp_path / "link").iterdir()) == [
        "device",
        "edge",
        "spool",
    ]
