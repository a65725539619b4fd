"""Lhotse: cuts, recordings with supervisions, Shar; the package itself writes them."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.aside import describe
from tests.pipeline.corpus.inputs.reading import codes, heard, json_lines, listed, rows, tone, values

lhotse = pytest.importorskip("lhotse")
NAMES = ("id", "ref_text", "speaker", "language")


@pytest.fixture
def recordings(tmp_path: Path) -> Any:
    """Two files: a, a second long; b, two channels of 0.4 s at 0.5 and -0.5."""
    tone(tmp_path / "in" / "audio" / "a.wav", 1.0)
    tone(tmp_path / "in" / "audio" / "b.wav", 0.4, channels=2)
    files = sorted((tmp_path / "in" / "audio").iterdir())
    return lhotse.RecordingSet.from_recordings(
        relative(lhotse.Recording.from_file(file, recording_id=f"rec-{file.stem}"), tmp_path / "in")
        for file in files
    )


def relative(recording: Any, folder: Path) -> Any:
    for source in recording.sources:
        source.source = str(Path(source.source).relative_to(folder))
    return recording


def supervision(number: int, recording: str, start: float, duration: float, **more: Any) -> Any:
    return lhotse.SupervisionSegment(f"sup-{number}", recording, start, duration, **more)


@pytest.fixture
def supervisions() -> Any:
    return lhotse.SupervisionSet.from_segments(
        [
            supervision(1, "rec-a", 0.5, 0.25, text="and two", speaker="anna", language="en"),
            supervision(2, "rec-a", 0.0, 0.25, text="one", speaker="bert", language="en"),
            supervision(3, "rec-b", 0.0, 0.4, text="three", speaker="anna", channel=[0, 1]),
        ]
    )


def test_recordings_and_their_supervisions(tmp_path: Path, recordings: Any, supervisions: Any) -> None:
    recordings.to_file(tmp_path / "in" / "tiny_recordings_dev.jsonl.gz")
    supervisions.to_file(tmp_path / "in" / "tiny_supervisions_dev.jsonl.gz")
    found = rows(tmp_path / "in")
    name = "tiny_recordings_dev.jsonl.gz"
    assert {clip_id: (*values(row, *NAMES), heard(row)) for clip_id, row in found.items()} == {
        f"{name}#1": ("rec-a", "one and two", None, "en", (1.0, 0.5)),
        f"{name}#2": ("rec-b", "three", "anna", None, (0.4, 0.0)),
    }
    first = json.loads(found[f"{name}#1"]["supervisions"])
    assert [(one["speaker"], one["start"], one["duration"]) for one in first] == [
        ("bert", 0.0, 0.25),
        ("anna", 0.5, 0.25),
    ]
    aside: Counter[str] = Counter()
    listed(tmp_path / "in", aside=aside)
    assert describe(aside) == ""


def test_cuts(tmp_path: Path, recordings: Any, supervisions: Any) -> None:
    whole = lhotse.CutSet.from_manifests(recordings.subset(first=1), supervisions)
    parts = whole.trim_to_supervisions(keep_overlapping=False)
    (tmp_path / "in" / "cuts.jsonl").write_text(json_lines(cut.to_dict() for cut in [*whole, *parts]))
    found = rows(tmp_path / "in")
    seen = [
        (*values(row, "ref_text", "speaker", "recording_id", "start_s", "length_s"), heard(row))
        for row in found.values()
    ]
    assert list(found)[:3] == ["audio/b.wav#b", "cuts.jsonl#1", "cuts.jsonl#2"]
    assert seen[1:] == [
        ("one and two", None, "rec-a", None, None, (1.0, 0.5)),
        ("and two", "anna", "rec-a", 0.5, 0.25, (0.25, 0.5)),
        ("one", "bert", "rec-a", 0.0, 0.25, (0.25, 0.5)),
    ]


def test_what_is_more_than_a_part_of_a_file(tmp_path: Path, recordings: Any) -> None:
    a, b = lhotse.CutSet.from_manifests(recordings)
    a = a.drop_supervisions()
    second = next(cut for cut in lhotse.CutSet.from_cuts([b.to_mono()[1]]))
    cuts = [second, a.append(a.truncate(duration=0.5)), a.perturb_volume(0.5), a.pad(1.25)]
    (tmp_path / "in" / "cuts.jsonl.gz").write_bytes(
        gzip.compress(json_lines(c.to_dict() for c in cuts).encode())
    )
    found = rows(tmp_path / "in")
    assert set(codes(found).values()) == {None}
    assert [heard(found[f"cuts.jsonl.gz#{number}"]) for number in (1, 2, 3)] == [
        (0.4, -0.5),
        (1.5, 0.5),
        (1.0, 0.25),
    ]
    assert heard(found["cuts.jsonl.gz#4"])[0] == 1.25


def test_what_cannot_be_made_is_told(tmp_path: Path, recordings: Any) -> None:
    cut = next(iter(lhotse.CutSet.from_manifests(recordings))).to_dict()
    records: list[dict[str, Any]] = [json.loads(json.dumps(cut)) for _ in range(5)]
    touched = tmp_path / "touched"
    records[0]["recording"]["sources"][0] |= {"type": "command", "source": f"touch {touched}"}
    records[1]["recording"]["sources"][0]["source"] = "audio/gone.wav"
    del records[2]["recording"]
    records[3]["recording"]["sources"][0]["type"] = "shar"
    records[4]["start"] = "soon"
    tracks = [{"cut": records[1], "type": "MonoCut", "offset": 0}]
    gone = {"id": "mixed", "type": "MixedCut", "tracks": tracks}
    (tmp_path / "in" / "cuts.jsonl").write_text(json_lines([*records, gone, {"type": "MonoCut", "id": "x"}]))
    found = {id_: row for id_, row in rows(tmp_path / "in").items() if id_.startswith("cuts")}
    said = {id_.partition("#")[2]: row["error"] and row["error"]["message"] for id_, row in found.items()}
    assert list(codes(found).values()) == [
        *("bad_record", None, "bad_record", "bad_record", "bad_record"),
        *("not_found", "bad_record"),
    ]
    assert "commands are not run" in said["1"]
    assert not touched.exists()
    assert said["3"] == "the cut has no recording"
    assert said["4"].startswith("its audio is in a tar of its Shar")
    assert said["6"] == f"{tmp_path}/in/audio/gone.wav does not exist"


def test_without_the_package_parts_of_files_are_read(
    tmp_path: Path, recordings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = lhotse.CutSet.from_manifests(recordings)
    cuts = [a, a.perturb_volume(0.5)]
    (tmp_path / "in" / "cuts.jsonl").write_text(json_lines(cut.to_dict() for cut in cuts))
    monkeypatch.setitem(sys.modules, "lhotse.serialization", None)
    found = rows(tmp_path / "in")
    assert heard(found["cuts.jsonl#1"]) == (1.0, 0.5)
    assert found["cuts.jsonl#2"]["error"]["code"] == "bad_record"
    assert "pip install 'w2vbert[lhotse]'" in found["cuts.jsonl#2"]["error"]["message"]


def test_a_shar(tmp_path: Path, recordings: Any, supervisions: Any) -> None:
    home = tmp_path / "in"
    for source in (source for recording in recordings for source in recording.sources):
        source.source = str(home / source.source)
    cuts = lhotse.CutSet.from_manifests(recordings.subset(first=1), supervisions)
    parts = cuts.trim_to_supervisions(keep_overlapping=False).to_eager()
    (tmp_path / "shar").mkdir()
    parts.to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=1)
    found = rows(tmp_path / "shar")
    first, second = parts
    assert {
        clip_id: (*values(row, "ref_text", "speaker"), heard(row)[0]) for clip_id, row in found.items()
    } == {
        f"recording.000000.tar#{first.id}": ("and two", "anna", 0.25),
        f"recording.000001.tar#{second.id}": ("one", "bert", 0.25),
    }
    assert [round(heard(row)[1], 2) for row in found.values()] == [0.5, 0.5]
    lines = gzip.decompress((tmp_path / "shar" / "cuts.000001.jsonl.gz").read_bytes()).decode()
    more = json.dumps({"id": "lost", "type": "MonoCut"})
    (tmp_path / "shar" / "cuts.000001.jsonl.gz").write_bytes(
        gzip.compress(f"{lines}{more}\n{{broken\n".encode())
    )
    assert codes(rows(tmp_path / "shar")) == {
        f"recording.000000.tar#{first.id}": None,
        f"recording.000001.tar#{second.id}": None,
        "recording.000001.tar#lost": "no_audio",
        "recording.000001.tar#cuts.000001.jsonl.gz:3": "bad_record",
    }
