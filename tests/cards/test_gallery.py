"""The gallery: what is in its pages, and what a browser makes of them."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from splitrun.errors import DependencyError
from splitzoo import cards
from splitzoo.cards.gallery import libraries
from splitzoo.cards.gallery.entries import page_name, read_entries
from splitzoo.cards.gallery.site import build_gallery
from splitzoo.cards.record import CardRecord, read_record
from splitzoo.cards.writing import write_texts
from splitzoo.zoo.hub_push import BITS_NAME, DRAWINGS
from splitzoo.zoo.model_rows import ModelRow, package_rows
from splitzoo.zoo.packaged import packaged

GENERATED = Path(__file__).parents[2] / "cards" / "generated"
HOSTILE = "<img src=x onerror=alert(1)>|\"q'`*b*`</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The gallery of the carried models."""
    return build_gallery([GENERATED], tmp_path_factory.mktemp("gallery") / "site").parent


class Tags(HTMLParser):
    """All tags of a page, with their attributes."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_model_has_a_row_and_a_page(site) -> None:
    links = [attrs["href"] for tag, attrs in Tags(site / "index.html").found if tag == "a"]
    pages = [link for link in links if link.startswith("models/")]
    assert set(pages) == {f"models/{name}/index.html" for name in packaged()}
    assert len(pages) == len(packaged())
    assert "flowers" not in pages[0]  # those of the default model's data come first
    for page in pages:
        for tag, attrs in Tags(site / page).found:
            for target in (attrs.get("href"), attrs.get("src"), attrs.get("srcset")):
                if target and not target.startswith(("https:", "data:", "#")):
                    assert (site / page).parent.joinpath(target).is_file(), (tag, target)


def test_no_page_loads_anything_from_elsewhere(site) -> None:
    for page in site.rglob("*.html"):
        loaded = [
            attrs.get("src") or attrs.get("srcset") or (attrs.get("href") if tag == "link" else "")
            for tag, attrs in Tags(page).found
        ]
        assert not [one for one in loaded if one and re.match(r"(\w+:)?//", one)]


def test_points_are_the_rows_of_results(site) -> None:
    text = (site / "index.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="points">(.*?)</script>', text)
    keys = ("model", "coding", "score", "stream_bytes")  # levels of rate differ in the last two
    points = {tuple(one[key] for key in keys) for one in json.loads(data)}
    named = {(model, coding) for model, coding, *_ in points}
    rows = [row for row in package_rows() if (row.model, row.coding) in named]
    assert {tuple(getattr(row, key) for key in keys) for row in rows} == points
    assert len(rows) == len(json.loads(data)) > 30


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A card of whose machine, labels, source and command somebody else wrote the names."""
    name = next(iter(packaged()))
    content = json.loads((GENERATED / name / "card.json").read_text())
    for document in ("manifest", "profile", "accuracy", "config"):
        labels = [f"{HOSTILE} {number}" for number in range(5)]
        content[document]["spec"] |= {"reference": HOSTILE, "labels": labels}
    for document in ("profile", "accuracy"):
        content[document] |= {"source": HOSTILE, "command": f"{HOSTILE} ``` <b>"}
    content["profile"]["environment"]["cpu"] = HOSTILE
    content["manifest"]["parity"]["pairs"] = [{"device": HOSTILE, "edge": HOSTILE}]
    folder = shutil.copytree(GENERATED / name, tmp_path / "cards" / "hostile")
    write_texts(CardRecord.model_validate(content).facts(), folder)
    return folder


def hostile_rows(folder: Path) -> list[ModelRow]:
    """A row of results with such names, on the images of a card."""
    report = read_record(folder).accuracy
    changes = {"model": HOSTILE, "series": HOSTILE, "data": HOSTILE, "machine": HOSTILE}
    digest = {"data_sha256": report.data.sha256}
    return [package_rows()[0].model_copy(update=changes | digest)]


def test_hostile_names_are_text_on_every_page(hostile, tmp_path) -> None:
    site = build_gallery([hostile.parent], tmp_path / "site", rows=hostile_rows(hostile)).parent
    (page,) = site.glob("models/*/index.html")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", page.parent.name)
    for html in (site / "index.html", page):
        tags = Tags(html).found
        allowed = {*DRAWINGS, BITS_NAME}
        assert {attrs.get("src") for tag, attrs in tags if tag == "img"} <= allowed
        assert not [
            attrs
            for _, attrs in tags
            if any(name.startswith("on") for name in attrs) and attrs.get("id") != "filters"
        ]
        assert "<img src=x" not in html.read_text()
        scripts = [attrs for tag, attrs in tags if tag == "script"]
        assert all("src" in attrs or attrs.get("type") == "application/json" for attrs in scripts)


def test_what_makes_no_gallery_is_one_message(tmp_path, splitzoo, monkeypatch) -> None:
    def refused(message: str, *folders: Path) -> None:
        code, _, err = splitzoo("cards", "gallery", *folders, "-o", tmp_path / "out")
        assert (code, message in err) == (1, True), err
        assert not (tmp_path / "out").exists()

    (tmp_path / "empty").mkdir()
    refused("a gallery of no model", tmp_path / "empty")
    refused("There is no folder", tmp_path / "missing")
    name = next(iter(packaged()))
    shutil.copytree(GENERATED / name, tmp_path / "twice" / "one")
    shutil.copytree(GENERATED / name, tmp_path / "twice" / "two")
    refused(f"Two cards are of {name}", tmp_path / "twice")
    (tmp_path / "twice" / "two" / "card.json").write_text("{}")
    refused("no valid record of a card", tmp_path / "twice")
    monkeypatch.setattr(libraries, "files", lambda name: Path("/nowhere"))
    with pytest.raises(DependencyError, match="JavaScript") as error:
        libraries.libraries()
    assert "splitzoo[gallery]" in error.value.next_step


def test_pages_have_names_of_their_own() -> None:
    assert page_name("resnet50-jpeg-q50") == "resnet50-jpeg-q50"
    names = {page_name(name) for name in ("../a", "a|b", "a<b", "", "é", "-", "a/b", "x" * 300)}
    assert len(names) == 8
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in names)


def test_models_with_one_device_half_name_each_other(tmp_path) -> None:
    name = next(iter(packaged()))
    record = read_record(GENERATED / name)
    shutil.copytree(GENERATED / name, tmp_path / "one")
    content = json.loads(record.to_json())
    for document in ("manifest", "profile", "accuracy", "config"):
        content[document]["spec"]["name"] = "other"
    (tmp_path / "other").mkdir()
    other = CardRecord.model_validate(content | {"model": "other"})
    write_texts(other.facts(), tmp_path / "other")
    assert [entry.spec.name for entry in read_entries([tmp_path])] == [name, "other"]
    site = build_gallery([tmp_path], tmp_path / "site").parent
    text = (site / "models" / name / "index.html").read_text()
    assert '<a href="../other/index.html">other</a>' in text


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    given = os.environ.get("SPLITZOO_CHROMIUM", "")
    known = (given, "chromium", "chromium-browser", "google-chrome")
    program = next((found for one in known if one and (found := shutil.which(one))), None)
    if program is None:
        pytest.skip("no Chromium is installed (SPLITZOO_CHROMIUM names one)")
    with api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        opened = playwright.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page; what it logs as an error, and what it asks the network, fails the test."""
    context = browser.new_context()
    context.set_default_timeout(120_000)
    opened, wrong = context.new_page(), []
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
    opened.on(
        "request",
        lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or wrong.append(asked.url),
    )
    yield opened
    context.close()
    assert wrong == []


def column(page, number: int) -> list[str]:
    return page.locator(f"#models tbody tr td:nth-child({number})").all_inner_texts()


@pytest.mark.slow
def test_the_table_sorts_and_filters(page, site) -> None:
    page.goto((site / "index.html").as_uri())
    assert sorted(column(page, 1)) == sorted(packaged())
    head = page.locator("#models thead th", has_text="bytes").first
    head.click()
    sizes = [int(text.replace(",", "")) for text in column(page, 6)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1000 < sizes[-1]
    head.locator("[tabindex='0']").first.focus()
    page.keyboard.press("Enter")  # the keyboard sorts too
    page.wait_for_selector("#models tbody tr:first-child:has-text('84,985')")
    assert [int(text.replace(",", "")) for text in column(page, 6)] == sizes[::-1]
    method = page.locator("#filters select[data-column=method]")
    method.select_option("input-compression")
    assert set(column(page, 4)) == {"input-compression"}
    method.select_option("")
    page.get_by_role("searchbox").fill("mshp")
    assert sorted(column(page, 1)) == sorted(name for name in packaged() if "mshp" in name)


@pytest.mark.slow
def test_plots_say_what_a_point_is_and_lead_to_its_page(page, site) -> None:
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector("#tradeoff .points path")
    drawn = page.evaluate("document.getElementById('tradeoff').data.flatMap(one => one.y).length")
    first = package_rows()[0].data_sha256
    assert drawn == len([row for row in package_rows() if row.data_sha256 == first])
    page.locator("#tradeoff .points path").first.hover(force=True)
    page.wait_for_selector("#tradeoff .hovertext")
    said = page.locator("#tradeoff .hovertext").first.text_content()
    assert any(row.model in said for row in package_rows())
    assert "bytes" in said
    for value, words in (("bits", "encoder bits × bytes"), ("device_ms", "device latency")):
        page.get_by_label("x axis").select_option(value)
        page.wait_for_selector(f"#tradeoff .xtitle:has-text('{words}')")
    page.locator("#three").scroll_into_view_if_needed()
    page.wait_for_selector("#three canvas")
    kinds = page.evaluate("document.getElementById('three').data.map(one => one.type)")
    assert set(kinds) == {"scatter3d"}


@pytest.mark.slow
def test_a_model_s_page_is_read_in_the_dark_and_on_a_phone(page, site) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto((site / "index.html").as_uri())
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    page.locator("#models tbody a").first.click()
    page.wait_for_url("**/models/**")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark, light) == ("rgb(18, 24, 31)", "rgb(255, 255, 255)")
    page.get_by_role("button", name="Copy").first.click()
    page.wait_for_selector("pre button:has-text('Copied'), pre button:has-text('Selected')")
    images = page.evaluate("[...document.images].map(one => one.complete && one.naturalWidth)")
    assert all(images)
    page.get_by_role("link", name="All models").click()
    page.wait_for_url("**/index.html")


@pytest.mark.slow
def test_hostile_names_run_nothing(page, hostile, tmp_path) -> None:
    site = build_gallery([hostile.parent], tmp_path / "site", rows=hostile_rows(hostile)).parent
    page.goto((site / "index.html").as_uri())
    heads = page.locator("#models thead th").all_inner_texts()
    assert any(HOSTILE in head for head in heads)
    page.wait_for_selector("#tradeoff .points path")
    page.locator("#tradeoff .points path").first.hover(force=True)
    page.wait_for_selector("#tradeoff .hovertext")
    assert HOSTILE in page.locator("#tradeoff .hovertext").first.text_content()
    page.locator("#models tbody a").click()
    page.wait_for_url("**/models/**")
    assert f"{HOSTILE} → {HOSTILE}" in page.locator("main").inner_text()
    assert cards.read(hostile / "README.md").data.library_name == "splitzoo"
