"""Texts of others: what enters, and what a terminal is shown of it."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitrun.image_files import find_images
from splitrun.text import check_texts, is_plain, json_text, visible

TEXTS = st.text(st.characters())  # halves of code pairs included
STEERING = ["\x1b[2J", "\x9b31m", "\r", "\b", "\0", "\u202e", "\u2066", "\ud800", "\u200b", "\x7f"]


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_written_as_python_writes_it(text):
    assert not is_plain(text)
    assert visible(f"a{text}b") == f"a{text.encode('unicode_escape').decode()}b"
    assert text not in json_text([text])
    assert json.loads(json_text([text])) == [text]
    with pytest.raises(ValueError, match=r"a\.1 is .* which holds control characters"):
        check_texts({"a": ["plain", text]})
    with pytest.raises(ValueError, match="a key of the document"):
        check_texts({text: 1})


@pytest.mark.parametrize(
    "text", ["", "Größe 3 β → ≥ 5×5", "日本語", "a\u2009b\u00a0c", "👍", "a\u0301"]
)
def test_other_texts_are_shown_as_they_are(text):
    assert is_plain(text)
    assert visible(text) == text
    assert json_text(text) == json.dumps(text, ensure_ascii=False)
    check_texts([text, {"a": text}])


@given(TEXTS)
def test_nothing_that_is_shown_is_of_unicode_s_control_categories(text):
    for shown in (visible(text), visible(text, keep=""), json_text({"a": text})):
        categories = {unicodedata.category(char) for char in shown.replace("\n", "")}
        assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert json.loads(json_text({"a": text})) == {"a": text}


def test_a_very_long_text_is_refused():
    check_texts({"a": "x" * (1 << 14)})
    with pytest.raises(ValueError, match=r"^a has 16,385 characters"):
        check_texts({"a": "x" * ((1 << 14) + 1)})


def test_files_with_names_that_no_report_can_hold_are_counted_and_not_read(tmp_path):
    (tmp_path / "good.jpg").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "x\x1b[2J").mkdir()
    (tmp_path / "x\x1b[2J" / "lost.jpg").touch()
    (tmp_path / "in" / "a\nb.jpg").touch()
    open(bytes(tmp_path) + b"/\xff.jpg", "wb").close()  # noqa: PTH123
    found = find_images(tmp_path)
    assert [path.name for path in found.images] == ["good.jpg"]
    assert [file.name for file in found.unread] == ["\\udcff.jpg", "in/a\\nb.jpg", "x\\x1b[2J"]
    assert {file.reason for file in found.unread} == {
        "its name holds control characters or no UTF-8"
    }
