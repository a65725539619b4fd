"""SRT and WebVTT on one timeline and a file a clip."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.export.job import export, format_summary
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import Run, clip, words, write


def test_srt_on_one_timeline(run: Run) -> None:
    assert run.text("srt") == (
        "1\n00:00:00,020 --> 00:00:00,980\nhello world\n\n"
        "2\n00:00:02,500 --> 00:00:03,700\na < b & c -> d\n\n"
        "3\n00:00:06,800 --> 00:00:07,100\none\n\n"
        "4\n00:00:08,200 --> 00:00:09,200\ntwo three\n\n"
    )


def test_srt_per_clip(run: Run) -> None:
    assert run.files("srt") == {
        "a b.tar/Hello.srt": "1\n00:00:00,020 --> 00:00:00,980\nhello world\n\n",
        "a b.tar/hello~2.srt": "1\n00:00:00,000 --> 00:00:01,200\na < b & c -> d\n\n",
        "b.tar/silent.srt": "1\n00:00:00,000 --> 00:00:03,000\n\n",
        "b.tar/long.srt": (
            "1\n00:00:00,100 --> 00:00:00,400\none\n\n2\n00:00:01,500 --> 00:00:02,500\ntwo three\n\n"
        ),
    }


def test_vtt_on_one_timeline(run: Run) -> None:
    assert run.text("vtt") == (
        "WEBVTT\n\n"
        "NOTE a%20b.tar#Hello\n\n00:00:00.020 --> 00:00:00.980\nhello world\n\n"
        "NOTE a%20b.tar#hello\n\n00:00:02.500 --> 00:00:03.700\na &lt; b &amp; c --&gt; d\n\n"
        "NOTE b.tar#silent\n\n"
        "NOTE b.tar#long\n\n00:00:06.800 --> 00:00:07.100\none\n\n"
        "00:00:08.200 --> 00:00:09.200\ntwo three\n\n"
    )


def test_subtitles_of_the_reference(run: Run) -> None:
    assert run.files("srt", reference=True) == {
        "a b.tar/Hello.srt": "1\n00:00:00,000 --> 00:00:01,000\nhallo world\n\n",
        "b.tar/silent.srt": "1\n00:00:00,000 --> 00:00:03,000\n\n",
    }


def test_clips_without_text_words_or_length_are_left_out_and_counted(run: Run) -> None:
    done = run("srt", "files", reference=True)
    assert (done.clips, dict(done.left_out)) == (2, {"undecodable": 1, "without text": 2})
    assert format_summary(done) == (
        "clips       2 written, 3 left out (without text 2, undecodable 1)\n"
        f"output      {run.folder / 'files'}, a file per clip"
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9), max_size=40),
    st.floats(0.5, 100),
)
def test_vtt_of_any_text_reads_back(tmp_path: Path, spoken: list[str], duration_s: float) -> None:
    step = duration_s / max(1, len(spoken))
    said = [(word, n * step, (n + 1) * step) for n, word in enumerate(spoken)]
    row = clip("x#1", duration_s, text=" ".join(spoken), words=words(*said))
    table = write(tmp_path / "any", [row])
    spec = ExportSpec(
        table=str(table), format="vtt", output=str(tmp_path / "x.vtt"), per_clip=False, overwrite=True
    )
    export(spec)
    head, note, *blocks = (tmp_path / "x.vtt").read_bytes().decode().split("\n\n")
    assert (head, note, blocks.pop()) == ("WEBVTT", "NOTE x#1", "")
    read, last = [], 0.0
    for block in blocks:
        times, *text = block.split("\n")
        assert text
        assert "-->" not in "".join(text)
        start, end = (_seconds(time) for time in times.split(" --> "))
        assert last <= start < end <= duration_s + 0.001
        last = end
        plain = " ".join(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        read += plain.split()
    assert read == " ".join(spoken).split()


def _seconds(time: str) -> float:
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)\.(\d\d\d)", time)
    assert match
    hours, minutes, seconds, thousandths = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
