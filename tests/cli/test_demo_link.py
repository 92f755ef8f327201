"""demo-link: a real server, a real sender, and a link between them."""

import json

import pytest


@pytest.mark.slow
def test_photographs_go_over_the_link(splitzoo, tmp_path) -> None:
    pytest.importorskip("starlette", reason="needs the server: the extra serve")
    code, out, _ = splitzoo("demo-link", "-o", tmp_path / "link", "--json")
    said = json.loads(out)
    cat, espresso, tripod = said["sent"]
    assert code == 0
    assert "cat" in cat["answer"]
    assert (espresso["answer"], tripod["answer"]) == ("espresso", "tripod")
    for sent in said["sent"]:
        # 37.5 kbit/s are 4.6875 bytes a millisecond.
        assert sent["air_ms"] >= sent["sent_bytes"] / 4.6875
    assert sum(sent["jpeg_bytes"] / sent["stream_bytes"] for sent in said["sent"]) > 3 * 1.5
    assert sorted(path.name for path in (tmp_path / "link").iterdir()) == [
        "device",
        "edge",
        "spool",
    ]
