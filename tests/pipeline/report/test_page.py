"""The page in a real browser: it draws, plays, filters, jumps to a word, and asks nothing of a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobs.report import main
from tests.pipeline.report.tables import CLIPS, PARQUET, TAR, ask, rows, write

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium"),
]
expect.set_options(timeout=15_000)
EXTERNAL = ("http:", "https:", "ws:", "wss:", "ftp:")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    told = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=told)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def html(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["--table", str(table), "--output", str(output)]) == 0
    return output


@contextmanager
def shown(browser: Browser, html: Path, **context: Any) -> Iterator[Page]:
    """The page in a window of its own; nothing may be said in the console or asked of a network."""
    opened = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
    page = opened.new_page()
    page.set_default_timeout(15_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on("request", lambda asked: said.append(asked.url) if asked.url.startswith(EXTERNAL) else None)
    page.goto(html.as_uri())
    page.wait_for_selector("#list tr.clip")
    yield page
    opened.close()
    assert said == []


@pytest.fixture
def page(browser: Browser, html: Path) -> Iterator[Page]:
    with shown(browser, html) as page:
        yield page


def ids(page: Page) -> list[str]:
    return page.locator("#list tr.clip .id button").all_inner_texts()


def opened_clip(page: Page, clip_id: str) -> Any:
    page.locator("#list tr.clip .id button").filter(has_text=re.compile(f"^{re.escape(clip_id)}$")).click()
    player = page.locator(".player")
    expect(player).to_have_count(1)
    return player


def test_every_chart_is_drawn(page: Page) -> None:
    charts = page.locator("[data-chart]")
    for number in range(charts.count()):
        charts.nth(number).scroll_into_view_if_needed()
        expect(charts.nth(number)).to_have_attribute("data-drawn", "")
        assert charts.nth(number).locator("svg path, svg rect").count() > 1
    assert charts.count() == 22
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_numbers_are_those_of_the_table(page: Page, table: Path) -> None:
    tiles = dict(
        zip(
            page.locator(".tile span:first-child").all_inner_texts(),
            page.locator(".tile b").all_inner_texts(),
            strict=True,
        )
    )
    assert tiles["clips"] == str(ask(table, "SELECT count(*) FROM clips"))
    assert tiles["errors"] == str(ask(table, "SELECT count(error) FROM clips"))
    assert tiles["turns"] == str(ask(table, "SELECT sum(len(segments)) FROM clips"))
    assert tiles["x-vectors"] == str(ask(table, "SELECT count(embedding) FROM clips"))
    assert tiles["confidence"] == f"{ask(table, 'SELECT 100 * avg(text_confidence) FROM clips'):.1f} %"
    assert tiles["WER"] == "30.00 %"


def test_it_plays_and_words_light_up(page: Page) -> None:
    player = opened_clip(page, "manifest/list.jsonl#3")
    audio = player.locator("audio")
    assert audio.evaluate("async a => { await a.play(); return a.paused }") is False
    lit = player.locator(".spoken .now")
    expect(lit).to_have_text("seven")
    expect(lit).to_have_text("zero")
    expect(player.locator(".lane i.now")).to_have_count(1)
    page.wait_for_function("document.querySelector('.player audio').currentTime > 1")


def test_a_click_on_a_word_jumps_to_it(page: Page) -> None:
    player = opened_clip(page, "manifest/list.jsonl#3")
    (row,) = [row for row in rows() if row["clip_id"] == "manifest/list.jsonl#3"]
    start = row["words"][2]["start_s"]
    player.locator(".spoken").get_by_role("button", name="three").click()
    page.wait_for_function(f"document.querySelector('.player audio').currentTime >= {start} - 0.01")
    assert player.locator("audio").evaluate("a => a.currentTime") < start + 1
    expect(player.locator(".spoken .now")).to_have_text("three")
    # The same word below the reference is lit with it.
    expect(player.locator(".words .now")).to_have_text("three")


def test_a_click_on_the_picture_seeks(page: Page) -> None:
    player = opened_clip(page, "manifest/list.jsonl#3")
    picture = player.locator(".picture")
    expect(player).to_have_attribute("data-drawn", "")
    width = picture.bounding_box()["width"]
    picture.click(position={"x": width / 2, "y": 90})
    assert player.locator("audio").evaluate("a => a.currentTime") == pytest.approx(3.938875 / 2, abs=0.01)


def test_one_sees_the_sound(page: Page) -> None:
    """The spectrogram is dark in silence and bright in speech, the wave flat and not."""
    player = opened_clip(page, f"{PARQUET}#4")
    expect(player).to_have_attribute("data-drawn", "")
    light = player.locator("canvas.spectrogram").evaluate(
        "c => { const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        "let most = 0, least = 999; for (let i = 0; i < data.length; i += 4) {"
        "const s = data[i] + data[i+1] + data[i+2]; most = Math.max(most, s); least = Math.min(least, s) }"
        "return [least, most, c.height] }"
    )
    assert light[0] < 80
    assert light[1] > 600
    assert light[2] == 256


def test_the_transform_is_the_discrete_fourier_transform(page: Page) -> None:
    script = (Path(__file__).parents[3] / "pipeline/report/page/picture.js").read_text(encoding="utf-8")
    found = page.evaluate(
        "script => { const transform = new Function(script + '; return transform')();"
        "const re = Float32Array.from({length: 16}, (_, n) => Math.cos(2 * Math.PI * 3 * n / 16) + 0.5);"
        "const im = new Float32Array(16); transform(re, im);"
        "return [...re].map((x, k) => Math.round(1000 * Math.hypot(x, im[k])) / 1000) }",
        script,
    )
    assert found == [8 if k in (0, 3, 13) else 0 for k in range(16)]


def test_differences_are_marked(page: Page) -> None:
    player = opened_clip(page, f"{PARQUET}#4")
    said = player.locator(".words > span")
    assert [re.sub(r"\s+", " ", text) for text in said.all_inner_texts()] == [
        *("six six", "three thre", "three three", "zero zero", "one", "three three"),
    ]
    kinds = [said.nth(number).get_attribute("class") for number in range(6)]
    assert kinds == ["equal", "wrong", "equal", "equal", "missing", "equal"]


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("nignht", ["loose/speech.opus#speech"]),
        ("wer>60", [f"{PARQUET}#1"]),
        ("seven wer<=50 wer>=50", ["manifest/list.jsonl#2", "manifest/list.jsonl#3"]),
        ("speaker=f3", ["manifest/list.jsonl#1", f"{PARQUET}#6"]),
        ("error=undecodable", [f"{TAR}#000004"]),
        ("label=female take=0 speakers=2", ["manifest/list.jsonl#1", f"{TAR}#000000"]),
        ("nobody says this", []),
    ],
)
def test_search(page: Page, typed: str, left: list[str]) -> None:
    page.get_by_role("searchbox").fill(typed)
    expect(page.locator("#count")).to_have_text(f"{len(left)} of 12 clips")
    assert sorted(ids(page)) == sorted(left)


def test_filters_and_order(page: Page) -> None:
    page.get_by_label("with audio").check()
    assert set(ids(page)) == {clip_id for clip_id, *_ in CLIPS}
    page.get_by_label("Kind of clips").select_option("wer")
    assert len(ids(page)) == 5
    length = page.get_by_role("columnheader", name="length")
    length.get_by_role("button").click()
    assert length.get_attribute("aria-sort") == "descending"
    seconds = {clip_id: seconds for clip_id, seconds, *_ in CLIPS}
    falling = ids(page)
    assert falling == sorted(falling, key=lambda clip_id: -seconds[clip_id])
    length.get_by_role("button").click()
    assert ids(page) == falling[::-1]


def test_a_part_leads_to_its_clips(page: Page) -> None:
    page.get_by_role("button", name="Hear: most word errors 5").click()
    expect(page.locator("#count")).to_have_text("5 of 12 clips")
    assert ids(page)[0] == f"{PARQUET}#1"


def test_a_point_of_the_map_is_heard(page: Page) -> None:
    chart = page.locator("figure", has_text="Map of voices").locator("[data-chart]")
    chart.scroll_into_view_if_needed()
    expect(chart).to_have_attribute("data-drawn", "")
    expect(chart.locator("svg .mark-symbol.role-mark path")).to_have_count(11)
    chart.locator("svg .mark-symbol.role-mark path").first.click()
    expect(page.locator(".player")).to_have_count(1)
    page.wait_for_function("document.querySelector('.player audio').currentTime > 0")
    expect(page.locator("#list tr.clip:has(+ tr.open) .id button")).to_be_focused()
    chart.locator("select").select_option(label="speaker")
    expect(chart.locator("svg .role-legend-label").first).to_have_text("f3")


def test_keys(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("list.jsonl")
    page.keyboard.press("ArrowDown")
    first = page.locator("#list tr.clip .id button").first
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#list tr.clip .id button").nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowRight")
    assert page.locator("audio").evaluate("a => a.currentTime") == 1
    page.keyboard.press("ArrowLeft")
    assert page.locator("audio").evaluate("a => a.currentTime") == 0
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('audio').currentTime > 0")
    page.keyboard.press(" ")
    assert page.locator("audio").evaluate("a => a.paused") is True
    page.keyboard.press("Escape")
    expect(first).to_have_attribute("aria-expanded", "false")
    expect(first).to_be_focused()
    expect(page.locator(".player")).to_have_count(0)


def test_an_error_says_what_it_is(page: Page) -> None:
    player = opened_clip(page, f"{TAR}#000004")
    expect(player.locator(".message")).to_have_text(
        "decode: undecodable. no decoder knows </script><b>it</b>"
    )
    assert player.locator("audio").count() == 0


def test_light_and_dark(browser: Browser, html: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with shown(browser, html, color_scheme=scheme) as page:
            chart = page.locator("[data-chart]").first
            expect(chart).to_have_attribute("data-drawn", "")
            bar = chart.locator("svg .mark-rect.role-mark path").first
            colours = [page.locator("body").evaluate("b => getComputedStyle(b).backgroundColor")]
            colours.append(bar.evaluate("b => getComputedStyle(b).fill"))
            grounds.append(colours)
    assert grounds == [
        ["rgb(246, 245, 242)", "rgb(47, 95, 208)"],
        ["rgb(18, 20, 23)", "rgb(134, 168, 255)"],
    ]


def test_phone(browser: Browser, html: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with shown(browser, html, **phone) as page:
        opened_clip(page, "manifest/list.jsonl#3")
        for number in range(page.locator("[data-chart]").count()):
            page.locator("[data-chart]").nth(number).scroll_into_view_if_needed()
            expect(page.locator("[data-chart]").nth(number)).to_have_attribute("data-drawn", "")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        wide = page.evaluate(
            "[...document.querySelectorAll('.player, .player *, figure, .tile')]"
            ".filter(one => one.getBoundingClientRect().right > 361).length"
        )
        assert wide == 0


def test_a_table_without_parts(browser: Browser, tmp_path: Path) -> None:
    names = ("ref_text", "embedding", "segments", "frame_activity", "label_score", "alignment_score", "words")
    table = write(tmp_path / "table", without=names)
    output = tmp_path / "report.html"
    told = ["--table", str(table), "--output", str(output), "--audio-mb", "0", "--clips", "5"]
    assert main(told) == 0
    with shown(browser, output) as page:
        assert page.locator("main > section").evaluate_all("all => all.map(one => one.id)") == [
            *("overview", "text", "clips", "provenance"),
        ]
        heads = page.locator("#list thead button").all_inner_texts()
        assert heads == ["clip", "text", "confidence", "label", "length"]
        assert len(ids(page)) == 5
        link = opened_clip(page, next(name for name in ids(page) if name.startswith("loose/"))).locator("a")
        assert link.get_attribute("href").startswith("file:///")
