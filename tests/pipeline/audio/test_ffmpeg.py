"""What only FFmpeg reads: films, phones and browsers, and what of them is cut."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.recording import decode
from pipeline.errors import Code
from tests.pipeline.audio.sounds import RATE, A, B, chunk, failure, mux, sweep, ways, whole

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "200000"}
LONG = sweep(3.0)


def boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        found.append(data[at : at + size])
        at += size
    return found


def m4a(*sounds: np.ndarray, codec: str = "aac", **options: str) -> bytes:
    return mux(*sounds or [A], format="mp4", codec=codec, **options)


def edited(data: bytes, start: int, samples: int) -> bytes:
    """With an edit list that leaves a part of the sound, in the time scale of samples."""
    at = data.index(b"elst")
    scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    edit = struct.pack(">III", 1, samples * scale // RATE, start)
    return data[: at + 8] + edit + data[at + 20 :]


def shortened(sound: np.ndarray) -> bytes:
    """SPHERE as sph2pipe is used on: the samples in Shorten's differences (type 5, blocks of 256)."""
    bits: list[str] = []

    def unsigned(value: int, width: int) -> None:
        bits.append("0" * (value >> width) + "1" + (f"{value & (1 << width) - 1:0{width}b}" if width else ""))

    def number(value: int) -> None:
        unsigned(value.bit_length(), 2)
        unsigned(value, value.bit_length())

    for field in (5, 1, 256, 0, 0, 0):
        number(field)
    samples = np.round(sound[:, 0] * 32767).astype(int)
    before = 0
    for first in range(0, len(samples), 256):
        block = samples[first : first + 256]
        if len(block) < 256:
            unsigned(5, 2)
            number(len(block))
        unsigned(1, 2)
        unsigned(10, 3)
        for sample in block:
            step = int(sample) - before
            unsigned(step << 1 if step >= 0 else ~step << 1 | 1, 11)
            before = int(sample)
    unsigned(4, 2)
    text = "".join(bits)
    body = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    coding = "pcm,embedded-shorten-v2.00"
    head = (
        f"NIST_1A\n   1024\nsample_count -i {len(samples)}\nsample_n_bytes -i 2\nchannel_count -i 1\n"
        f"sample_byte_format -s2 01\nsample_rate -i {RATE}\n"
        f"sample_coding -s{len(coding)} {coding}\nend_head\n"
    )
    return head.encode().ljust(1024) + b"ajkg\2" + body


FILES = ways(
    m4a=m4a,
    alac=lambda: mux(A, format="mov", codec="alac"),
    fragments=lambda: m4a(**FRAGMENTS),
    webm=lambda: mux(A, format="webm", codec="libopus"),
    webm_of_a_browser=lambda: mux(A, format="webm", codec="libopus", pipe=True, live="1"),
    mka=lambda: mux(A, format="matroska", codec="libmp3lame"),
    film=lambda: mux(A, format="mp4", codec="aac", video=True),
    film_in_matroska=lambda: mux(A, format="matroska", codec="libopus", video=True),
    film_in_avi=lambda: mux(A, format="avi", codec="libmp3lame", video=True),
    film_in_avi_of_a_pipe=lambda: mux(A, format="avi", codec="libmp3lame", video=True, pipe=True),
    film_in_flv=lambda: mux(A, format="flv", codec="aac"),
    ts=lambda: mux(A, format="mpegts", codec="aac"),
    wavpack=lambda: mux(A, format="wv", codec="wavpack"),
    tta=lambda: mux(A, format="tta", codec="tta"),
    shorten=lambda: shortened(A),
)


@FILES
def test_whole_and_in_part(build) -> None:
    data = build()
    found = whole(data, A)
    assert found.channels == 1
    part = decode(data, start_s=0.25, length_s=0.5)
    assert part.duration_s == 0.5
    np.testing.assert_allclose(
        part.samples[200:-200], found.samples[RATE // 4 :][: RATE // 2][200:-200], atol=1e-4
    )


@pytest.mark.slow
@ways(
    m4a=lambda: m4a(LONG),
    alac=lambda: mux(LONG, format="mov", codec="alac"),
    fragments=lambda: m4a(LONG, **FRAGMENTS),
    index_first=lambda: m4a_with_index_first(),
    webm=lambda: mux(LONG, format="webm", codec="libopus"),
    webm_of_a_browser=lambda: mux(LONG, format="webm", codec="libopus", pipe=True, live="1"),
    film=lambda: mux(LONG, format="mp4", codec="aac", video=True),
    film_in_matroska=lambda: mux(LONG, format="matroska", codec="libopus", video=True),
    film_in_avi=lambda: mux(LONG, format="avi", codec="libmp3lame", video=True),
    flv=lambda: mux(LONG, format="flv", codec="aac"),
    wavpack=lambda: mux(LONG, format="wv", codec="wavpack"),
    tta=lambda: mux(LONG, format="tta", codec="tta"),
    amr=lambda: mux(sweep(3.0, rate=8000), format="amr", codec="libopencore_amrnb", rate=8000),
    shorten=lambda: shortened(LONG),
)
@pytest.mark.parametrize("kept", [0.31, 0.5, 0.77])
def test_cut(build, kept: float) -> None:
    data = build()
    assert decode(data).duration_s == pytest.approx(3.0, abs=0.15)
    code, message = failure(data[: round(len(data) * kept) | 1])
    assert code is Code.TRUNCATED, message


def m4a_with_index_first() -> bytes:
    """As one prepares it for the web."""
    parts = m4a_parts(m4a(LONG))
    moved = len(parts[b"moov"])
    moov = parts[b"moov"]
    at = moov.index(b"stco") + 8
    count = struct.unpack(">I", moov[at : at + 4])[0]
    offsets = struct.unpack(f">{count}I", moov[at + 4 : at + 4 + 4 * count])
    new = struct.pack(f">{count}I", *(offset + moved for offset in offsets))
    moov = moov[: at + 4] + new + moov[at + 4 + 4 * count :]
    return parts[b"ftyp"] + moov + parts.get(b"free", b"") + parts[b"mdat"]


def m4a_parts(data: bytes) -> dict[bytes, bytes]:
    return {box[4:8]: box for box in boxes(data)}


def test_index_first() -> None:
    whole(m4a_with_index_first(), LONG)


def test_fragments_of_a_segment_without_their_index() -> None:
    data = m4a(LONG, **FRAGMENTS)
    without = b"".join(box for box in boxes(data) if box[4:8] != b"moov")
    code, message = failure(without)
    assert (code, "index" in message) == (Code.TRUNCATED, True)


def test_an_edit_list() -> None:
    data = edited(m4a(LONG), RATE, RATE)
    assert decode(data).duration_s == pytest.approx(1.0, abs=0.1)


@ways(
    m4a=lambda: m4a(A) + m4a(B),
    fragments=lambda: m4a(A, **FRAGMENTS) + m4a(B, **FRAGMENTS),
    webm=lambda: mux(A, format="webm", codec="libopus") + mux(B, format="webm", codec="libopus"),
    mp4_other_rate=lambda: m4a(A) + mux(sweep(1.5, 500.0, 44100, 2), format="mp4", codec="aac", rate=44100),
)
def test_one_after_another(build) -> None:
    whole(build(), A, B)


def test_the_first_of_several_streams() -> None:
    for data in (m4a(A, B), m4a(B, A), mux(A, B, format="matroska", codec="libopus", video=True)):
        first = A if decode(data).duration_s < 1.2 else B
        whole(data, first)


def test_sound_that_ends_before_the_pictures() -> None:
    """Pictures last 2 s: the length in the header is theirs."""
    for format, codec in (("mp4", "aac"), ("matroska", "libopus"), ("avi", "libmp3lame")):
        whole(mux(A, format=format, codec=codec, video=True), A)


def test_reasons(tmp_path: Path) -> None:
    pictures = mux(format="mp4", codec="aac", video=True)
    assert failure(pictures) == (Code.UNDECODABLE, "the file has no audio stream")
    unknown = mux(A, format="matroska", codec="libopus").replace(b"A_OPUS", b"A_XXXX")
    assert failure(unknown) == (Code.UNDECODABLE, "FFmpeg has no decoder for the audio stream")
    code, message = failure(b"\xff" * 3000)
    assert (code, message) == (Code.UNDECODABLE, "neither libsndfile nor FFmpeg knows the format")


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(mux(A, format="mpegts", codec="aac"))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/a.ts\n#EXT-X-ENDLIST\n"
    assert failure(playlist.encode())[0] is Code.UNDECODABLE


def test_a_codec_of_wav_that_libsndfile_does_not_know() -> None:
    data = mux(A, format="wav", codec="g722")
    whole(data, A)
    assert failure(data[: len(data) // 2])[0] is Code.TRUNCATED
    at = data.index(b"data") + 4
    whole(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :], A)
    whole(data + chunk(b"LIST", b"INFO" + bytes(3000)), A)
