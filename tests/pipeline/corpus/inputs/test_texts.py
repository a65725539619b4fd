"""Loose audio with its texts: x.txt and x.lab, LibriSpeech, LJSpeech. The clips keep their ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.corpus.aside import describe
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.condition import Where
from pipeline.corpus.listing import filter_files
from pipeline.corpus.readers import READERS
from pipeline.storage import Storage, StorageError
from tests.pipeline.corpus.inputs.reading import STORAGE, codes, heard, listed, rows, tone, values


def test_a_text_of_the_same_name_is_the_reference(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("a.wav", "b.flac", "c.wav", "d.wav", "e.wav", "sub/a.wav", "f.wav", "g.wav")
    ):
        tone(tmp_path / name, 0.1 + number / 10)
    texts = {
        "a.txt": "\ufefftwo words \n",
        "b.lab": "three more words",
        "c.lab": "0 3000000 sil\n3000000 9000000 ah\n",
        "d.txt": "caf\xe9".encode("latin-1"),
        "e.wav.txt": "längere Namen",
        "f.txt": "wide".encode("utf-16"),
        "x.txt": "of nothing",
        "notes.pdf": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = rows(tmp_path)
    assert {clip_id: values(row, "ref_text", "lab", "extra") for clip_id, row in found.items()} == {
        "a.wav#a": ("two words", None, None),
        "b.flac#b": ("three more words", None, None),
        "c.wav#c": (None, "0 3000000 sil\n3000000 9000000 ah", None),
        "d.wav#d": (None, None, '{"text": "Y2Fm6Q=="}'),
        "e.wav#e": ("längere Namen", None, None),
        "f.wav#f": ("wide", None, None),
        "g.wav#g": (None, None, None),
        "sub/a.wav#a": (None, None, None),
    }
    assert set(codes(found).values()) == {None}
    assert heard(found["b.flac#b"]) == (0.2, 0.5)
    aside: Counter[str] = Counter()
    listed(tmp_path, aside=aside)
    assert describe(aside) == "1 *.pdf, 1 *.txt"


def test_a_text_decides_what_where_takes(tmp_path: Path) -> None:
    for name, text in {"a": "yes", "b": "no"}.items():
        tone(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(text)
    schema = pa.schema([("ref_text", pa.string())])
    kept = filter_files(listed(tmp_path), Where("ref_text = 'yes'", schema), Passthrough(schema), STORAGE)
    assert [shard.name for shard in kept] == ["a.wav"]


class Refusing(Storage):
    """Storage that does not deliver one of its files."""

    def read_bytes(self, uri: str) -> bytes:
        if uri.endswith("a.txt"):
            raise StorageError(f"{uri}: a storage that failed")
        return super().read_bytes(uri)


def test_a_text_that_is_not_delivered_is_asked_for_again(tmp_path: Path) -> None:
    for name in "ab":
        tone(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(name)
    (first, second) = listed(tmp_path)
    reader, storage = READERS["audio"], Refusing(STORAGE.options)
    passthrough = Passthrough(pa.schema([("ref_text", pa.string())]))
    (row,) = next(reader.tables(first, storage, passthrough)).to_pylist()
    assert (row["error"]["stage"], row["error"]["code"]) == ("read", "unreadable")
    assert row["error"]["message"] == f"{tmp_path}/a.txt: a storage that failed"
    (row,) = next(reader.tables(second, storage, passthrough)).to_pylist()
    assert (row["error"], row["ref_text"]) == (None, "b")


def test_librispeech(tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean" / "84" / "121123"
    for number in range(3):
        tone(chapter / f"84-121123-000{number}.flac", 0.1 + number / 10)
    tone(chapter / "84-121550-0000.flac")
    lines = b"84-121123-0000 GO DO YOU HEAR\r\n84-121123-0001 BUT IN LESS\n84-121123-0002 caf\xe9\n"
    (chapter / "84-121123.trans.txt").write_bytes(lines)
    found = rows(tmp_path)
    prefix = "dev-clean/84/121123"
    assert {clip_id: values(row, "ref_text", "speaker") for clip_id, row in found.items()} == {
        f"{prefix}/84-121123-0000.flac#84-121123-0000": ("GO DO YOU HEAR", "84"),
        f"{prefix}/84-121123-0001.flac#84-121123-0001": ("BUT IN LESS", "84"),
        f"{prefix}/84-121123-0002.flac#84-121123-0002": (None, None),
        f"{prefix}/84-121550-0000.flac#84-121550-0000": (None, None),
    }
    extra = found[f"{prefix}/84-121123-0002.flac#84-121123-0002"]["extra"]
    assert extra == '{"text": "ODQtMTIxMTIzLTAwMDIgY2Fm6Q=="}'
    aside: Counter[str] = Counter()
    listed(tmp_path, aside=aside)
    assert not aside


def test_ljspeech(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        tone(tmp_path / "wavs" / f"LJ001-000{number}.wav", number / 10)
    (tmp_path / "metadata.csv").write_text(
        'LJ001-0001|Printing, in 1454|Printing, in fourteen fifty-four\nLJ001-0002|"only|'
    )
    (tmp_path / "README").write_text("")
    found = rows(tmp_path)
    assert {clip_id: values(row, "ref_text", "normalized_text") for clip_id, row in found.items()} == {
        "wavs/LJ001-0001.wav#LJ001-0001": ("Printing, in 1454", "Printing, in fourteen fifty-four"),
        "wavs/LJ001-0002.wav#LJ001-0002": ('"only', None),
        "wavs/LJ001-0003.wav#LJ001-0003": (None, None),
    }
    assert heard(found["wavs/LJ001-0002.wav#LJ001-0002"]) == (0.2, 0.5)
    aside: Counter[str] = Counter()
    listed(tmp_path, aside=aside)
    assert describe(aside) == "1 extensionless file"


@pytest.mark.parametrize("text", ["file_name,text\nwavs/a.wav,hello\n", "id,words\na,hello\n"])
def test_a_metadata_csv_with_a_header_is_as_before(tmp_path: Path, text: str) -> None:
    tone(tmp_path / "wavs" / "a.wav")
    (tmp_path / "metadata.csv").write_text(text)
    found = rows(tmp_path)
    expected = ("metadata.csv#1", "hello") if "file_name" in text else ("wavs/a.wav#a", None)
    assert [(clip_id, row.get("ref_text")) for clip_id, row in found.items()] == [expected]


def test_common_voice(tmp_path: Path) -> None:
    for number in (1, 2):
        tone(tmp_path / "en" / "clips" / f"cv_{number}.wav", number / 10)
    (tmp_path / "en" / "validated.tsv").write_text(
        "client_id\tpath\tsentence\tgender\nspk1\tcv_1.wav\tHello there.\tfemale\n"
        'spk2\tcv_2.wav\tGood "bye\t\n'
    )
    found = rows(tmp_path)
    assert {
        clip_id: (*values(row, "client_id", "sentence", "gender"), heard(row))
        for clip_id, row in found.items()
    } == {
        "en/validated.tsv#1": ("spk1", "Hello there.", "female", (0.1, 0.5)),
        "en/validated.tsv#2": ("spk2", 'Good "bye', None, (0.2, 0.5)),
    }
