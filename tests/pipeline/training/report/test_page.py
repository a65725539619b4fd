"""`training.html`: it parses, has the numbers, and draws them in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import zlib
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.metrics.rttm import Segment
from pipeline.metrics.words import Piece, differences
from pipeline.storage import Storage, StorageOptions
from pipeline.training.report.page import UnusableClip, render, write_page
from pipeline.training.report.page.charts import Curves
from pipeline.training.report.page.pictures import Bar, MaskedExample, spectrogram, timeline
from tests.pipeline.training.report.runs import STEPS, page

STORAGE = Storage(StorageOptions())
SECRET = "EXAMPLE\"KEY<that>&is'secret"
VOID = {"meta", "link", "img", "br", "input", "hr"}
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)


class Reader(HTMLParser):
    """The texts of a page, every element closed where it was opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def data_of(html: str) -> dict[str, list[dict[str, Any]]]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def html() -> str:
    return render(page(), STORAGE)


def test_the_numbers_are_there(html: str) -> None:
    texts = Reader(html).texts
    for tile in (
        ["transcribe WER", "12.5%", "best, at step 500"],
        ["classify accuracy", "100.0%", "best, at step 1,000"],
        ["steps", "1,000", "of 2,000, epoch 5"],
        ["audio heard", "22.2 h", "in 17 min"],
        ["speed", "80 ×", "real time"],
        ["waiting for data", "1.0%", "of the time"],
        ["clips not used", "25", "and 1 in batches left out"],
    ):
        assert any(texts[at : at + 3] == tile for at in range(len(texts))), tile
    assert {"digits <small>", "t#17", "the text of <clip 17>", "s#bad", "4 →"} <= {
        text.rstrip("· ").split(" 3.5")[0] for text in texts
    }
    reason = texts.index("label too long")
    assert texts[reason + 1] == "25"
    assert texts[reason + 2 : reason + 6] == ["t#0", "0 tokens", "t#1", "1 tokens"]
    assert "… and 5 more" in texts


def test_nothing_comes_from_the_network(html: str) -> None:
    for tag, name, value in Reader(html).attributes:
        if name in ("src", "href"):
            assert value.startswith("data:"), (tag, value)
    assert "@import" not in html
    assert not re.search(r"url\(|fetch\(|XMLHttpRequest", html)


def test_curves(html: str) -> None:
    charts = data_of(html)
    (loss,) = charts["losses"]
    training, validation = loss["series"]
    assert (loss["title"], loss["log"]) == ("transcribe", True)
    assert len(training["x"]) == 240
    assert training["high"][0] == 1000.0  # the first step is in the first point
    assert training["low"][-1] == 1.0  # and the last in the last
    assert (validation["x"], validation["y"]) == ([250, 500, 750, 1000], [1.5] * 4)
    assert [chart["title"] for chart in charts["quality"]] == [
        "transcribe: WER",  # nothing failed
        "classify: accuracy",
    ]
    titles = [chart["title"] for chart in charts["course"]]
    assert titles == [
        "learning rate",
        "gradient norm",
        "frames a second",
        "seconds waited for data",
        "transcribe: blank frames",
    ]
    one, two = charts["voices"][0]["series"]
    assert one["y"][-1] == two["y"][30] == 1.0  # cosines of 1 and of 0


def test_points_are_means_of_all_steps() -> None:
    steps = [{"kind": "step", "step": n, "epoch": 0, "task/loss": float(n)} for n in range(1, STEPS + 1)]
    (chart,) = Curves.of(steps).losses()
    (series,) = chart.series
    assert series.y == pytest.approx(series.x, rel=1e-3)
    assert series.x == sorted(series.x)
    assert min(series.low) == 1
    assert max(series.high) == STEPS


def test_masked_prediction_is_shown_beside_the_trivial_answer() -> None:
    facts = {"accuracy": 0.2, "most_frequent": 0.1, "codes_used": 300.0, "loss": 5.0}
    step = {f"masked-prediction/{name}": value for name, value in facts.items()}
    curves = Curves.of([{"kind": "step", "step": 1, "epoch": 0, **step}])
    shares, codes = curves.course()
    assert [series.name for series in shares.series] == ["accuracy", "accuracy of the most frequent code"]
    assert (shares.percent, codes.percent, codes.series[0].y) == (True, False, [300.0])


def test_differences_word_by_word() -> None:
    assert differences("one two three", "one too three four") == [
        Piece("equal", "one", "one"),
        Piece("wrong", "two", "too"),
        Piece("equal", "three", "three"),
        Piece("inserted", "", "four"),
    ]
    assert [piece.kind for piece in differences("a b c", "")] == ["missing"] * 3
    assert differences("", "a b") == [Piece("inserted", "", "a"), Piece("inserted", "", "b")]


def test_differences_within_a_word_or_a_script_without_blanks() -> None:
    assert differences("你好吗", "你吗") == [
        Piece("equal", "你", "你"),
        Piece("missing", "好", ""),
        Piece("equal", "吗", "吗"),
    ]


def test_differences_are_marked(html: str) -> None:
    assert '<span class="wrong"><b>two</b><b>too</b></span>' in html
    assert '<span class="inserted"><b></b><b>four</b></span>' in html
    assert '<span class="missing"><b>&lt;six&gt;</b><b></b></span>' in html


def test_speakers_stand_for_those_they_share_the_most_time_with() -> None:
    reference = [Segment("speaker_0", 0, 2), Segment("speaker_1", 2, 4)]
    output = [Segment("speaker_1", 0, 2), Segment("speaker_0", 3, 4), Segment("speaker_2", 0, 1)]
    tracks = timeline(reference, output, 4.0)
    assert [(track.kind, track.name) for track in tracks] == [
        ("reference", "1"),
        ("reference", "2"),
        ("output", "1"),
        ("output", "2"),
        ("output", "?"),
        ("differences", ""),
    ]
    assert tracks[3].bars == [Bar(75.0, 25.0)]
    assert tracks[-1].bars == [Bar(0.0, 25.0), Bar(50.0, 25.0)]


def test_speakers_of_silence() -> None:
    assert [track.kind for track in timeline([], [], 3.0)] == ["differences"]
    assert timeline([Segment("a", 0, 3)], [], 3.0)[-1].bars == [Bar(0.0, 100.0)]


def test_the_spectrogram_is_a_picture_of_the_features() -> None:
    """Two stacked vectors of 80 bins are two columns, low bins below; values are clipped."""
    features = np.zeros((3, 160), np.float32)
    features[0, 0] = 99.0  # first column, lowest bin
    features[2, 159] = -99.0  # last column, highest bin
    mask = np.array([False, True, True])
    drawn = spectrogram(MaskedExample("c", features, mask), 0.02)
    assert (drawn.bars, drawn.share, drawn.seconds) == ([Bar(33.333, 66.667)], 2 / 3, 0.06)
    png = base64.b64decode(drawn.source.removeprefix("data:image/png;base64,"))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks[kind] = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + chunks[kind]) == int.from_bytes(png[at + 8 + length : at + 12 + length])
        at += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (6, 80)
    levels = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(80, 7)
    assert (levels[:, 0] == 0).all()
    assert levels[79, 1] == 255
    assert levels[0, 6] == 0
    assert levels[40, 3] == round(2 / 5 * 255)


def test_a_run_that_has_only_begun_has_a_page() -> None:
    told = page(
        events=[], clips={}, facts=[], masked=None, unusable=[], texts={}, hard=type(page().hard)([], [])
    )
    texts = Reader(render(told, STORAGE)).texts
    assert texts[:2] == ["digits <small> – training", texts[1]]
    assert "Loss" not in texts
    assert "Hard clips" not in texts


def test_no_credentials(tmp_path: Path) -> None:
    storage = Storage(StorageOptions(key="ID", secret=SECRET))  # type: ignore[arg-type]
    told = page(
        title=f"run {SECRET}",
        facts=[("command", f"x --secret '{SECRET}'"), ("data", "s3://user:pass@bucket/key")],
        texts={"t#17": SECRET},
        unusable=[UnusableClip(SECRET, SECRET, SECRET)],
    )
    write_page(told, str(tmp_path / "training.html"), storage)
    html = (tmp_path / "training.html").read_text()
    everything = "\n".join([*Reader(html).texts, *(value for *_, value in Reader(html).attributes)])
    assert SECRET not in everything
    assert "pass@" not in everything
    assert "run ***" in everything


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_browser_draws_it(html: str, tmp_path: Path, width: int, scheme: str) -> None:
    """Nothing on the console, a drawn curve in each chart, and nothing wider than the window."""
    probe = """<script>
    const outside = [...document.querySelectorAll("body *")]
        .filter(one => !one.closest("svg, .spectrogram"))
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => one.className || one.tagName);
    const drawn = [...document.querySelectorAll(".chart")]
        .map(one => one.querySelectorAll("path[stroke]").length);
    const ground = getComputedStyle(document.body).backgroundColor;
    parent.document.title = JSON.stringify({outside, drawn, ground, width: innerWidth});
    </script></body>"""
    file = tmp_path / "frame.html"  # the browser's own window cannot be as narrow as a phone
    framed = escape(html.replace("</body>", probe))
    file.write_text(f'<title></title><iframe style="border: 0; width: {width}px" srcdoc="{framed}"></iframe>')
    ran = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,2000"),
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
            *("--virtual-time-budget=2000", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    (title,) = re.findall("<title>(.*?)</title>", ran.stdout)
    told = json.loads(title)
    charts = data_of(html)
    expected = [
        len(chart["series"]) for name in ("losses", "quality", "voices", "course") for chart in charts[name]
    ]
    assert told["drawn"] == expected
    assert (told["outside"], told["width"]) == ([], width)
    assert told["ground"] == {"light": "rgb(246, 245, 242)", "dark": "rgb(18, 20, 23)"}[scheme]
