"""Audacity's labels, and ELAN's files as pympi reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pympi import Eaf

from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks.diarize import DIARIZATION_COLUMNS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS
from tests.pipeline.export.tables import Run, clip, turns, words, write


def test_audacity(run: Run) -> None:
    assert run.files("audacity") == {
        "a b.tar/Hello.labels.txt": "0.020000\t0.420000\thello\n0.500000\t0.980000\tworld\n",
        "a b.tar/hello~2.labels.txt": "0.000000\t1.200000\ta < b & c --> d\n",
        "b.tar/silent.labels.txt": "",
        "b.tar/long.labels.txt": (
            "0.100000\t0.400000\tone\n1.500000\t1.900000\ttwo\n2.000000\t2.500000\tthree\n"
        ),
    }


def test_audacity_on_one_timeline_and_of_the_reference(run: Run) -> None:
    assert run.text("audacity").splitlines()[2:4] == [
        "2.500000\t3.700000\ta < b & c --> d",
        "6.800000\t7.100000\tone",
    ]
    assert run.text("audacity", reference=True) == "0.000000\t0.400000\thallo\n0.480000\t1.000000\tworld\n"


def test_audacity_of_speakers(tmp_path: Path) -> None:
    spoken = turns(("speaker_0", 0.0, 1.5), ("speaker_1", 1.0, 2.5))
    row = clip("a.tar#x", 3.0, segments=spoken)
    table = write(tmp_path / "t", [row], annotations=DIARIZATION_COLUMNS)
    export(ExportSpec(table=str(table), format="audacity", output=str(tmp_path / "o"), per_clip=False))
    assert (tmp_path / "o").read_text() == "0.000000\t1.500000\tspeaker_0\n1.000000\t2.500000\tspeaker_1\n"


def tiers(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    read = Eaf(str(file))
    return {name: read.get_annotation_data_for_tier(name) for name in read.get_tier_names()}


def test_elan(run: Run) -> None:
    run("elan", "files")
    assert tiers(run.folder / "files/a b.tar/Hello.eaf") == {
        "words": [(20, 420, "hello"), (500, 980, "world")],
        "speaker_0": [(0, 1500, "speaker_0")],
        "speaker_1": [(1000, 2500, "speaker_1")],
    }
    assert tiers(run.folder / "files/b.tar/silent.eaf") == {"words": []}
    run("elan", "all.eaf", per_clip=False)
    found = tiers(run.folder / "all.eaf")
    assert list(found) == ["clips", "words", "speaker_0", "speaker_1"]
    assert found["clips"][0] == (0, 2500, "a%20b.tar#Hello")
    assert found["words"][2:] == [(6800, 7100, "one"), (8200, 8600, "two"), (8700, 9200, "three")]
    assert found["speaker_0"] == [(0, 1500, "speaker_0"), (6700, 10700, "speaker_0")]


def test_elan_opens_the_recording(tmp_path: Path) -> None:
    carried = pa.schema([("audio_filepath", pa.string()), ("offset", pa.float64())])
    said = words(("a & <b>", 0.0, 0.5))
    held = [
        {"clip_id": "my x.wav#my x", "shard": "/in/my x.wav", "duration_s": 2.0, "words": said},
        {
            "clip_id": "m.jsonl#1",
            "shard": "/in/m.jsonl",
            "audio_filepath": "s3://b/long.flac",
            "offset": 1.5,
            "duration_s": 2.0,
            "words": said,
        },
    ]
    schema = output_schema(carried, TRANSCRIPT_COLUMNS)
    pq.write_table(pa.Table.from_pylist(held, schema=schema), tmp_path / "t.parquet")
    export(ExportSpec(table=str(tmp_path / "t.parquet"), format="elan", output=str(tmp_path / "o")))
    loose, part = (Eaf(str(tmp_path / "o" / name)) for name in ("my x.eaf", "m.jsonl/1.eaf"))
    (media,) = loose.get_linked_files()
    assert (media["MEDIA_URL"], media["MIME_TYPE"]) == ("file:///in/my x.wav", "audio/x-wav")
    (media,) = part.get_linked_files()
    assert (media["MEDIA_URL"], media["TIME_ORIGIN"]) == ("s3://b/long.flac", "1500")
    assert loose.get_annotation_data_for_tier("words") == [(0, 500, "a & <b>")]


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["words", "clips"])


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=4), st.booleans())
def test_any_text_is_xml_with_tiers_of_their_own(
    tmp_path: Path, clips: list[tuple[str, str]], per_clip: bool
) -> None:
    rows = [
        clip(f"{n}.tar#x", 2.0, words=words((word, 0.5, 1.0)), segments=turns((speaker, 0.0, 1.0)))
        for n, (word, speaker) in enumerate(clips)
    ]
    table = write(tmp_path / "any", rows)
    spec = {"table": str(table), "format": "elan", "per_clip": per_clip, "overwrite": True}
    export(ExportSpec(**spec, output=str(tmp_path / f"out-{per_clip}")))
    files = sorted((tmp_path / "out-True").rglob("*.eaf")) if per_clip else [tmp_path / "out-False"]
    for file in files:
        root = ElementTree.parse(file).getroot()
        names = [tier.get("TIER_ID") for tier in root.iter("TIER")]
        assert len(set(names)) == len(names)
        slots = {slot.get("TIME_SLOT_ID") for slot in root.iter("TIME_SLOT")}
        used = [
            annotation.get(f"TIME_SLOT_REF{n}")
            for annotation in root.iter("ALIGNABLE_ANNOTATION")
            for n in (1, 2)
        ]
        assert sorted(used) == sorted(slots)
