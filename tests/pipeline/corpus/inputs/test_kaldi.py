"""Kaldi's data directories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.corpus.aside import describe
from tests.pipeline.corpus.inputs.reading import codes, heard, listed, rows, tone, values

NAMES = ("ref_text", "speaker", "gender", "recording")


def put(folder: Path, **tables: str | bytes) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        path = folder / ("wav.scp" if name == "wav" else name)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_recordings(tmp_path: Path) -> None:
    tone(tmp_path / "audio" / "a.wav", 0.1)
    tone(tmp_path / "audio" / "b.wav", 0.2)
    put(
        tmp_path / "data",
        wav=f"s1-a ../audio/a.wav\n\ns2-b   {tmp_path}/audio/b.wav \r\ns2-c gone.wav\n",
        text=b"s1-a HELLO  THERE\ns2-b\ns2-x NOWHERE\n",
        utt2spk="s1-a s1\ns2-b s2\ns2-c s2\n",
        spk2gender="s1 f\ns2 m\n",
        spk2utt="s1 s1-a\n",
    )
    found = rows(tmp_path)
    assert {clip_id: values(row, *NAMES) for clip_id, row in found.items()} == {
        "data/wav.scp#s1-a": ("HELLO  THERE", "s1", "f", None),
        "data/wav.scp#s2-b": ("", "s2", "m", None),
        "data/wav.scp#s2-c": (None, "s2", "m", None),
        "data/wav.scp#s2-x": ("NOWHERE", None, None, None),
    }
    assert heard(found["data/wav.scp#s2-b"]) == (0.2, 0.5)
    assert found["data/wav.scp#s2-c"]["source"] == f"{tmp_path}/data/gone.wav"
    error = found["data/wav.scp#s2-x"]["error"]
    assert error["code"] == "no_audio"
    assert error["message"] == "text tells of s2-x, which has no audio in data/wav.scp"
    aside: Counter[str] = Counter()
    listed(tmp_path, aside=aside)
    assert describe(aside) == "1 extensionless file"  # spk2utt says what utt2spk says


def test_segments(tmp_path: Path) -> None:
    tone(tmp_path / "talk.flac", 2.0)
    tone(tmp_path / "rest.flac", 0.3)
    put(
        tmp_path,
        wav="talk talk.flac\nrest rest.flac\n",
        segments="u1 talk 0.5 0.75\nu2 talk 1.00 -1\nu3 talk 2 1\nu4 talk x\nu5 lost 0 1\n",
        text=b"u1 one two\nu2 caf\xe9\nu3 three\nu9 nine\n",
        utt2spk="u1 anna\nu2 bert\n",
        utt2lang="u1 en\n",
    )
    found = rows(tmp_path)
    assert codes(found) == {
        "wav.scp#u1": None,
        "wav.scp#u2": None,
        "wav.scp#u3": "bad_record",
        "wav.scp#u4": "bad_record",
        "wav.scp#rest": None,
        "wav.scp#u5": "no_audio",
        "wav.scp#u9": "no_audio",
    }
    one, two = found["wav.scp#u1"], found["wav.scp#u2"]
    assert values(one, *NAMES, "language") == ("one two", "anna", None, "talk", "en")
    assert (one["start_s"], one["length_s"], heard(one)) == (0.5, 0.25, (0.25, 0.5))
    assert (two["start_s"], two["length_s"], heard(two)) == (1.0, None, (1.0, 0.5))
    assert (two["ref_text"], two["speaker"], two["extra"]) == (None, "bert", '{"text": "dTIgY2Fm6Q=="}')
    assert heard(found["wav.scp#rest"]) == (0.3, 0.5)
    message = "line 3 of segments: start and end must be seconds, and are '2 and 1'"
    assert found["wav.scp#u3"]["error"]["message"] == message


def test_what_is_no_file_is_told_by_row(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    lines = [
        b"a a.wav",
        b"b sph2pipe -f wav secret.sph |",
        b"c raw.ark:1234",
        b"d -",
        b"e",
        b"f caf\xe9.wav",
        b"a a.wav",
    ]
    put(tmp_path, wav=b"\n".join(lines))
    found = rows(tmp_path)
    assert list(codes(found).values()) == [None, *["bad_record"] * 5, None]
    assert list(found) == [f"wav.scp#{key}" for key in ("a", "b", "c", "d", "e", "f", "a~2")]
    said = found["wav.scp#b"]["error"]["message"]
    assert said.startswith("line 2 of wav.scp is a command, and commands are not run")
    assert "secret" not in said
    assert "line 3 of wav.scp names a place in an archive" in found["wav.scp#c"]["error"]["message"]


def test_other_names_are_no_directories(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "mywav.scp").write_text("a a.wav\n")
    (tmp_path / "text").write_text("a hello\n")
    aside: Counter[str] = Counter()
    assert [shard.name for shard in listed(tmp_path, aside=aside)] == ["a.wav"]
    assert describe(aside) == "1 *.scp, 1 extensionless file"
