"""Pages around hostile texts, read by another reader of Markdown (markdown-it, of CommonMark)."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from splitrun.bundle import open_bundle
from splitzoo import cards
from splitzoo.cards.card import CardFacts
from splitzoo.export.manifest import spec_of
from splitzoo.export.markdown import code, fence, plain
from splitzoo.export.splitting import bundle_page

HOSTILE = [
    "</td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b | c",
    "`` `code` ```",
    "](javascript:alert(1))",
    "[x](javascript:alert(1))",
    "![x](http://a.b/c.png)",
    "<javascript:alert(1)>",
    "**bold** *it* __x__ _y_ ~~z~~",
    "\\`\\|\\",
    "&lt;script&gt; &amp; &#60;",
    "https://evil.example www.evil.example",
    "$x^2$ $$y$$",
    "```",
    "--> <!-- x",
    "plain_text_with_underscores 1.2.3+cu132",
]


class Reader(HTMLParser):
    """Elements and text of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(markdown: str) -> Reader:
    # As the Hub and GitHub read it: tables, strike-through, HTML.
    found = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Reader(found.render(markdown))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is_and_makes_no_element(text) -> None:
    shown = read(f"before {plain(text)} after")
    assert ("".join(shown.text).strip(), shown.elements) == (f"before {text} after", ["p"])
    shown = read(f"before {code(text)} after")
    assert ("".join(shown.text).strip(), shown.elements) == (f"before {text} after", ["p", "code"])
    shown = read(f"x\n\n{fence(text)}\n\ny")
    assert shown.elements == ["p", "pre", "code", "p"]
    assert "".join(shown.text).split() == ["x", *text.split(), "y"]
    for cell, inner in ((plain(text), []), (code(text), ["code"])):
        shown = read(f"| a | b |\n| --- | --- |\n| {cell} | end |\n")
        rows = ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", *inner, "td"]
        assert shown.elements == rows
        assert text in shown.text[-1] or text in "".join(shown.text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_manifest_s_texts_are_texts_on_its_page_and_card(tiny_bundle, text) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    before = [read(page).elements for page in pages(manifest)]
    origin = replace(
        manifest.provenance,
        source=text,
        command=f"splitzoo export split {text}",
        versions={**manifest.provenance.versions, text: text},
    )
    for page, elements in zip(pages(replace(manifest, provenance=origin)), before, strict=True):
        shown = read(page)
        assert shown.elements == elements
        assert "".join(shown.text).count(text) >= 3


def pages(manifest) -> list[str]:
    card = cards.render(CardFacts(spec_of(manifest), manifest, None))
    return [bundle_page(manifest), card.text]
