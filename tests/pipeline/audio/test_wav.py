"""WAV and its relatives as writers of all kinds leave them: every sample, or an error that says why not."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pipeline.audio.recording import decode
from pipeline.errors import Code
from tests.pipeline.audio.sounds import (
    RATE,
    A,
    B,
    chunk,
    encode,
    failure,
    fmt,
    id3,
    mux,
    pcm,
    riff,
    rounded,
    sweep,
    ways,
    whole,
)

DATA = chunk(b"data", pcm(A))
LIST = chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf58.76.100\0")
ODD = b"odd " + struct.pack("<I", 5) + b"12345"
# What writers leave where they cannot go back: zero, ffmpeg's, sox's and its 24-bit stereo's, arecord's, and
# the largest numbers with and without a header taken off.
OPEN = (
    0,
    0xFFFFFFFF,
    0x7FFFF000,
    0x7FFFEFFC,
    0x80000000,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF - 36,
    0x7FFFFFFF - 44,
)


def extensible(valid: int, tag: int) -> bytes:
    guid = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    return struct.pack("<HHIH", 22, valid, 0, tag) + guid


def ds64(data: int, samples: int) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", data, data, samples, 0))


def rf64(header: bytes, magic: bytes = b"RF64") -> bytes:
    return riff(header, fmt(), chunk(b"data", pcm(A), 0xFFFFFFFF), size=0xFFFFFFFF, magic=magic)


def rifx() -> bytes:
    head = chunk(b"fmt ", struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), order=">")
    body = b"WAVE" + head + chunk(b"data", pcm(A, ">i2"), order=">")
    return b"RIFX" + struct.pack(">I", len(body)) + body


HALF = pcm(A)[:RATE], pcm(A)[RATE:]
FILES = ways(
    plain=lambda: riff(fmt(), DATA),
    extensible=lambda: riff(fmt(tag=0xFFFE, extra=extensible(16, 1)), DATA),
    list_before_and_after=lambda: riff(fmt(), LIST, DATA, LIST),
    odd_chunk_before=lambda: riff(fmt(), ODD + b"\0", DATA),
    odd_chunk_before_without_padding=lambda: riff(fmt(), ODD, DATA),
    bext_and_fact=lambda: riff(
        chunk(b"bext", bytes(602)), fmt(), chunk(b"fact", struct.pack("<I", RATE)), DATA
    ),
    cover_after=lambda: riff(fmt(), DATA, chunk(b"id3 ", id3(60_000))),
    id3_before=lambda: id3(3000) + riff(fmt(), DATA),
    id3v1_after=lambda: riff(fmt(), DATA) + b"TAG" + bytes(125),
    zeros_after=lambda: riff(fmt(), DATA) + bytes(100_000),
    half_a_sample_after=lambda: riff(fmt(), chunk(b"data", pcm(A) + b"\1")),
    riff_size_wrong=lambda: riff(fmt(), DATA, size=36),
    header_counted_as_data=lambda: riff(fmt(), chunk(b"data", pcm(A), len(pcm(A)) + 44)),
    two_data_chunks=lambda: riff(fmt(), *(chunk(b"data", half) for half in HALF)),
    data_chunks_around_others=lambda: riff(
        fmt(), chunk(b"data", HALF[0]), LIST, ODD + b"\0", chunk(b"data", HALF[1])
    ),
    an_empty_data_chunk_first=lambda: riff(fmt(), chunk(b"data", b""), DATA),
    big_endian=rifx,
    rf64=lambda: rf64(ds64(len(pcm(A)), RATE)),
    bw64=lambda: rf64(ds64(len(pcm(A)), RATE), b"BW64"),
    rf64_of_a_pipe=lambda: rf64(ds64(0, 0)),
    bw64_of_a_pipe=lambda: rf64(ds64(0, 0), b"BW64"),
    rf64_unknown=lambda: rf64(ds64(2**64 - 1, 0)),
    rf64_of_ffmpegs_pipe=lambda: mux(A, format="wav", codec="pcm_s16le", pipe=True, rf64="always"),
    wav_of_ffmpegs_pipe=lambda: mux(A, format="wav", codec="pcm_s16le", pipe=True),
)


@FILES
def test_every_sample(build) -> None:
    whole(build(), A, exact=True)


@pytest.mark.parametrize("size", OPEN)
def test_sizes_that_nobody_knew(size: int) -> None:
    whole(riff(fmt(), LIST, chunk(b"data", pcm(A), size), size=size), A, exact=True)
    whole(riff(fmt(), chunk(b"data", pcm(A), size), size=0), A, exact=True)


def test_a_size_in_between_is_no_such_sign() -> None:
    code, message = failure(riff(fmt(), chunk(b"data", pcm(A), 0x70000000)))
    assert (code, message) == (
        Code.TRUNCATED,
        f"the header gives {0x70000000} bytes of audio, {0x70000000 - 2 * RATE} are missing",
    )
    big = rf64(ds64(5 << 30, 5 << 29))
    assert failure(big)[0] is Code.TRUNCATED


def test_tags_are_no_audio() -> None:
    for name in (b"id3 ", b"LIST"):
        data = riff(fmt(), chunk(b"data", b""), chunk(name, id3(60_000)))
        assert failure(data) == (Code.EMPTY, "the audio has no samples")
        assert failure(data, start_s=0.5, length_s=1.0)[0] is Code.EMPTY


@ways(
    u8=lambda: encode(A, subtype="PCM_U8"),
    pcm_24=lambda: encode(A, subtype="PCM_24"),
    pcm_32=lambda: encode(A, subtype="PCM_32"),
    float=lambda: encode(A, subtype="FLOAT"),
    double=lambda: encode(A, subtype="DOUBLE"),
    pcm_24_in_32=lambda: riff(
        fmt(bits=32, tag=0xFFFE, extra=extensible(24, 1)),
        chunk(b"data", (A[:, 0] * 2**31).astype("<i4").tobytes()),
    ),
    alaw=lambda: encode(A, subtype="ALAW"),
    ulaw=lambda: encode(A, subtype="ULAW"),
    ima_adpcm=lambda: encode(A, subtype="IMA_ADPCM"),
    ms_adpcm=lambda: encode(A, subtype="MS_ADPCM"),
    gsm610=lambda: encode(A, subtype="GSM610"),
    g721=lambda: encode(A, subtype="G721_32"),
    nms_adpcm_16=lambda: encode(A, subtype="NMS_ADPCM_16"),
    nms_adpcm_24=lambda: encode(A, subtype="NMS_ADPCM_24"),
    nms_adpcm_32=lambda: encode(A, subtype="NMS_ADPCM_32"),
    g726=lambda: mux(sweep(1.0, 200.0, 8000), format="wav", codec="g726", rate=8000),
    mp3=lambda: riff(MP3, chunk(b"data", encode(A, "MP3"))),
    mp3_without_a_count=lambda: riff(MP3, chunk(b"data", UNCOUNTED)),
    wavex=lambda: encode(A, "WAVEX"),
)
def test_codecs_whole_in_part_and_cut(build) -> None:
    """Among them those in which libsndfile cannot seek."""
    data = build()
    found = whole(data, A).samples
    part = decode(data, start_s=0.25, length_s=0.5).samples
    np.testing.assert_allclose(part[200:-200], found[RATE // 4 :][: len(part)][200:-200], atol=2e-3)
    code, message = failure(data[: len(data) * 2 // 3])
    assert code is Code.TRUNCATED, message


MP3 = fmt(bits=0, tag=0x55, extra=struct.pack("<HHIHHH", 12, 1, 2, 576, 1, 1393))


UNCOUNTED = mux(A, format="mp3", codec="libmp3lame", pipe=True)


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16", "ALAW"])
def test_blocks_that_are_filled_up(subtype: str) -> None:
    """The fact chunk tells how many samples are meant; where it cannot be right, all are taken."""
    data = encode(sweep(1.0001), subtype=subtype)
    assert decode(data).duration_s == 16002 / RATE
    assert decode(data, start_s=0.9).duration_s == pytest.approx(16002 / RATE - 0.9, abs=1e-9)
    for wrong in (0, 3, 0x7FFFFFFF, 16002 * 2):
        at = data.index(b"fact") + 8
        assert decode(data[:at] + struct.pack("<I", wrong) + data[at + 4 :]).duration_s >= 16002 / RATE


def test_files_one_after_another() -> None:
    one, two = riff(fmt(), DATA), riff(fmt(), chunk(b"data", pcm(B)))
    whole(one + two, A, B, exact=True)
    whole(one + two + one, A, B, A, exact=True)
    whole(riff(fmt(), DATA, LIST) + bytes(2) + two, A, B, exact=True)
    other = encode(sweep(1.5, 500.0, 44100, 2), "FLAC", rate=44100)
    found = whole(one + other, A, B)
    assert (found.sample_rate, found.channels) == (RATE, 1)
    assert found.duration_s == pytest.approx(2.5, abs=1e-3)
    part = decode(one + two, start_s=0.75, length_s=0.5)
    np.testing.assert_array_equal(part.samples, rounded(np.concatenate([A, B]))[RATE * 3 // 4 :][: RATE // 2])
    np.testing.assert_array_equal(decode(one + two, start_s=1.5).samples, rounded(B)[RATE // 2 :])
    code, message = failure(one + two, start_s=3.0, length_s=1.0)
    assert (code, "2.500 s long" in message) == (Code.EMPTY, True)
    assert failure(one + two[: len(two) // 2])[0] is Code.TRUNCATED
    assert failure(one + two, max_duration_s=2.0)[0] is Code.TOO_LONG


@ways(
    aiff=lambda: encode(A, "AIFF"),
    aiff_float=lambda: encode(A, "AIFF", "FLOAT"),
    au=lambda: encode(A, "AU"),
    au_g721=lambda: encode(A, "AU", "G721_32"),
    w64=lambda: encode(A, "W64"),
    w64_gsm610=lambda: encode(A, "W64", "GSM610"),
    caf=lambda: encode(A, "CAF"),
    caf_alac=lambda: encode(A, "CAF", "ALAC_16"),
    sphere=lambda: encode(A, "NIST"),
    sphere_ulaw=lambda: encode(A, "NIST", "ULAW"),
    voc=lambda: encode(A, "VOC"),
    svx=lambda: encode(A, "SVX"),
    avr=lambda: encode(A, "AVR"),
    mat5=lambda: encode(A, "MAT5"),
    rf64=lambda: encode(A, "RF64"),
    wav=lambda: encode(A, "WAV"),
    float_wav=lambda: encode(A, "WAV", "FLOAT"),
    pcm_24_wav=lambda: encode(A, "WAV", "PCM_24"),
)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.75, 0.95])
def test_cut_anywhere(build, kept: float) -> None:
    data = build()
    whole(data, A)
    code, message = failure(data[: round(len(data) * kept)])
    assert code is Code.TRUNCATED, message


def resized(data: bytes, name: bytes, size: bytes) -> bytes:
    """With another size in the chunk of this name."""
    at = data.index(name) + len(name)
    return data[:at] + size + data[at + len(size) :]


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a"
BIG = (0).to_bytes(4, "big"), b"\xff" * 4, b"\x7f\0\0\x08", b"\x7f\xff\xff\xff"
LONG = bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f"


@ways(
    **{f"aiff_{size.hex()}": lambda size=size: resized(encode(A, "AIFF"), b"SSND", size) for size in BIG},
    **{
        f"au_{size.hex()}": lambda size=size: resized(encode(A, "AU"), b".snd\0\0\0\x18", size)
        for size in BIG[:2]
    },
    **{f"svx_{size.hex()}": lambda size=size: resized(encode(A, "SVX"), b"BODY", size) for size in BIG},
    **{f"w64_{size.hex()}": lambda size=size: resized(encode(A, "W64"), W64_DATA, size) for size in LONG},
    caf=lambda: resized(encode(A, "CAF"), b"data", b"\xff" * 8),
    caf_zero=lambda: resized(encode(A, "CAF"), b"data", bytes(8)),
    sphere=lambda: encode(A, "NIST").replace(b"sample_count -i 16000\n", b"; its length is open \n"),
    sphere_minus_one=lambda: encode(A, "NIST").replace(b"sample_count -i 16000", b"sample_count -i -1   "),
    voc=lambda: encode(A, "VOC")[:27] + b"\xff\xff\xff" + encode(A, "VOC")[30:],
    **{
        f"{name}_of_ffmpegs_pipe": lambda name=name, codec=codec: mux(A, format=name, codec=codec, pipe=True)
        for name, codec in {
            "aiff": "pcm_s16be",
            "au": "pcm_s16be",
            "caf": "pcm_s16be",
            "w64": "pcm_s16le",
            "voc": "pcm_s16le",
        }.items()
    },
)
def test_relatives_of_unknown_size(build) -> None:
    whole(build(), A, slack_s=0.001)


@ways(
    aiff=lambda: encode(A, "AIFF") + encode(B, "AIFF"),
    au=lambda: encode(A, "AU") + encode(B, "AU"),
    w64=lambda: encode(A, "W64") + encode(B, "W64"),
    caf=lambda: encode(A, "CAF") + encode(B, "CAF"),
    sphere=lambda: encode(A, "NIST") + encode(B, "NIST"),
)
def test_relatives_one_after_another(build) -> None:
    whole(build(), A, B, slack_s=0.001)


def test_reasons() -> None:
    assert failure(riff(fmt())) == (
        Code.UNDECODABLE,
        "the file has no chunk 'data', which would hold its audio",
    )
    assert failure(riff(fmt(rate=0), DATA)) == (
        Code.BAD_SAMPLE_RATE,
        "the header gives a sample rate of 0 Hz",
    )
    assert failure(riff(fmt(channels=0), DATA)) == (Code.UNDECODABLE, "the audio stream has no channels")
    code, message = failure(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n")
    assert (code, message) == (Code.UNDECODABLE, "neither libsndfile nor FFmpeg knows the format")
    for size in range(1, 60):
        assert failure(riff(fmt(), DATA)[:size])[0] in (Code.UNDECODABLE, Code.TRUNCATED, Code.EMPTY)


def test_sphere_and_au_to_the_byte() -> None:
    for format in ("NIST", "AU"):
        assert failure(encode(A, format)[:-2])[0] is Code.TRUNCATED


def test_two_voc_blocks() -> None:
    """libsndfile reads the first of them."""
    data = encode(A, "VOC")
    at = 26
    block = data[at + 4 : at + 16]
    halves = [b"\x09" + struct.pack("<I", 12 + len(half))[:3] + block + half for half in HALF]
    whole(data[:at] + b"".join(halves) + b"\0", A, slack_s=0.001)
