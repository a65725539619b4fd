"""RTTM as people write it: what is read, and what is refused with its line and what to do."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.metrics.der import References
from pipeline.metrics.rttm import Marks, Segment, Span, read_rttm
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
TURNS = [Segment("A", 0.5, 3.5), Segment("B", 4.0, 7.0)]
GOOD = "SPEAKER meeting 1 0.50 3.00 <NA> <NA> A <NA> <NA>\nSPEAKER meeting 1 4.0 3.0 <NA> <NA> B <NA> <NA>\n"


def read(tmp_path: Path, text: str | bytes) -> dict[str, Marks]:
    (tmp_path / "true.rttm").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rttm("--reference-rttm", str(tmp_path / "true.rttm"), STORAGE)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace(" ", "\t"),
        "\n \t\n" + GOOD.replace(" ", "  \t ").replace("\n", " \r\n") + "\x0b\n",
        "  " + GOOD,
        GOOD.replace("\n", "\r"),
        GOOD.rstrip(),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\n\ufeff", 1),  # two files with marks, joined
        ";; by hand\n  ;;too\n" + GOOD,
        "".join(f"{' '.join(line.split()[:8])}\n" for line in GOOD.splitlines()),
        "".join(f"{' '.join(line.split()[:9])}\n" for line in GOOD.splitlines()),
        GOOD.replace("<NA> <NA>\n", "0.75 0.1\n").replace("0.50 3.00", "+.5 3e0"),
    ],
)
def test_ways_to_write_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {"meeting": Marks(TURNS)}


def test_records_of_other_types(tmp_path: Path) -> None:
    others = (
        "SPKR-INFO meeting 1 <NA> <NA> <NA> adult_male A <NA> <NA>\n"
        "SEGMENT meeting 1 0 10 <NA> eval <NA> <NA> <NA>\n"
        "NO_RT_METADATA meeting 1 0 10 <NA> <NA> <NA> <NA>\n"
        "LEXEME meeting 1 0.5 0.3 hello lex A 0.9 <NA>\n"
        "NON-LEX meeting 1 0.9 0.1 <NA> laugh A <NA> <NA>\n"
        "NON-SPEECH meeting 1 8 1 <NA> noise <NA> <NA> <NA>\n"
        "FILLER meeting 1 1 1 um filled_pause A <NA>\nEDIT meeting 1 1 1 <NA> simple A <NA>\n"
        "IP meeting 1 1 <NA> <NA> edit A <NA>\nSU meeting 1 1 1 <NA> statement A <NA>\n"
        "CB meeting 1 1 <NA> <NA> clausal A <NA>\nA/P meeting 1 1 <NA> <NA> <NA> <NA> <NA>\n"
    )
    assert read(tmp_path, others + GOOD) == {"meeting": Marks(TURNS)}
    unscored = "NOSCORE meeting 1 8.0 1.5 <NA> <NA> <NA> <NA> <NA>\nNOSCORE else 1 0 1 <NA> <NA> <NA> <NA>\n"
    assert read(tmp_path, unscored + GOOD) == {"meeting": Marks(TURNS, [Span(8.0, 9.5)])}


def test_names_and_speakers_are_taken_as_they_stand(tmp_path: Path) -> None:
    lines = [
        f"SPEAKER {n} 1 0 2 <NA> <NA> {s} <NA> <NA>" for n, s in [("a#1", "None"), ("b\u00a0c\u2028d", "NA")]
    ]
    assert read(tmp_path, "\n".join(lines)) == {
        "a#1": Marks([Segment("None", 0, 2)]),
        "b\u00a0c\u2028d": Marks([Segment("NA", 0, 2)]),
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("SPEAKER my meeting 1 0.5 3.0 <NA> <NA> A <NA> <NA>", "it has 11 fields, not 8 to 10"),
        ("SPEAKER my meeting 1 0.5 3.0 <NA> <NA> A <NA>", "field 6 is the number 3.0, as if the recording's"),
        ("SPEAKER my meeting 1 0.5 3.0 <NA> <NA> A", "field 6 is the number 3.0, as if the recording's name"),
        ("SPEAKER take 2 1 0.5 3.0 <NA> <NA> A", "field 6 is the number 3.0, as if the recording's name"),
        ("SPEAKER my 1 2 1 0.5 3.0 <NA> <NA> A", "field 6 is the number 0.5, as if the recording's name"),
        ("SPEAKER a 1 0.5 3.0 <NA> <NA> Mary Ann <NA> <NA>", "it has 11 fields, not 8 to 10"),
        ("SPEAKER a 1 0.5 3.0 <NA> <NA> Mary Ann <NA>", "the confidence is 'Ann', as if the speaker's name"),
        ("SPEAKER a 1 0.5 3.0 <NA> <NA> Mary Ann", "the confidence is 'Ann', as if the speaker's name had a"),
        ("SPEAKER a 1 0.5 3.0 <NA> <NA> Speaker 2 <NA>", "the confidence is 2, not within 0 and 1"),
        ("SPEAKER a 1 0.0 1.0", "it has 5 fields, not 8 to 10"),
        (
            "SPEAKER a 1 0.0 x <NA> <NA> s <NA> <NA>",
            "the duration is 'x', not a number of seconds, 0 or more",
        ),
        ("SPEAKER a 1 0.0 -1 <NA> <NA> s <NA> <NA>", "the duration is '-1', not a number of seconds"),
        ("SPEAKER a 1 -0.5 1 <NA> <NA> s <NA> <NA>", "the start is '-0.5', not a number of seconds, 0 or"),
        ("SPEAKER a 1 nan 1 <NA> <NA> s <NA> <NA>", "the start is 'nan', not a number of seconds"),
        ("SPEAKER a 1 0 Infinity <NA> <NA> s <NA> <NA>", "the duration is 'Infinity', not a number of"),
        ("SPEAKER a 1 1e999 1 <NA> <NA> s <NA> <NA>", "the start is '1e999', not a number of seconds"),
        ("SPEAKER a 1 0,50 1 <NA> <NA> s <NA> <NA>", "the start is '0,50', not a number of seconds"),
        ("SPEAKER a 1 1_0 1 <NA> <NA> s <NA> <NA>", "the start is '1_0', not a number of seconds"),
        ("SPEAKER a 1 <NA> <NA> <NA> <NA> s <NA> <NA>", "the start is '<NA>', not a number of seconds"),
        ("NOSCORE a 1 5 -1 <NA> <NA> <NA> <NA> <NA>", "the duration is '-1', not a number of seconds"),
        ("clip_id,speaker,start,end", r"'clip_id,speaker,start,end' is no type of record \(comments begin"),
        ("# made by hand", "'#' is no type of record"),
        ("speaker a 1 0 1 <NA> <NA> s <NA> <NA>", "'speaker' is no type of record"),
    ],
)
def test_a_line_that_is_not_rttm_is_named_with_what_to_do(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(JobError, match=rf"true\.rttm, line 2: not an RTTM record, for {why}") as caught:
        read(tmp_path, f"{GOOD.splitlines()[0]}\n{line}\n")
    assert line in str(caught.value)
    assert (
        "Write SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>, and a blank inside a"
        in (str(caught.value))
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no SPEAKER record"),
        (b";; nothing\n", "holds no SPEAKER record"),
        (b"NOSCORE a 1 0 1 <NA> <NA> <NA> <NA>\n", "holds no SPEAKER record"),
        (GOOD.encode("utf-16"), "is not a text file in UTF-8 but, by its bytes, UTF-16: save it as UTF-8"),
        (GOOD.encode("utf-16-be"), "UTF-16: save it as UTF-8"),
        (GOOD.encode("utf-32"), "UTF-16: save it as UTF-8"),
        ((GOOD + GOOD.replace("meeting", "Café")).encode("latin-1"), "not a text file in UTF-8: see line 3"),
        (b"RIFF\xff\xfe", "is not a text file in UTF-8: see line 1"),
    ],
)
def test_files_that_cannot_serve(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(JobError, match=rf"--reference-rttm .*true\.rttm .*{said}"):
        read(tmp_path, data)


def test_no_file_and_references_that_travel(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--reference-rttm: .*absent\.rttm does not exist"):
        References.read(str(tmp_path / "absent.rttm"), STORAGE)
    references = References(read(tmp_path, GOOD))
    assert pickle.loads(pickle.dumps(references)) == references
    assert references.name_of("x/meeting.flac#meeting") == references.name_of("y.tar#x/meeting") == "meeting"
    assert references.name_of("meeting.tar#1") is None
