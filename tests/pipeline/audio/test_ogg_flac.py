"""Ogg and FLAC: chained, joined, of pipes that know no length, without their end, damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.audio.recording import decode
from pipeline.errors import Code
from tests.pipeline.audio.sounds import RATE, A, B, encode, failure, id3, mux, rounded, sweep, ways, whole

C = sweep(1.2, 900.0)


def vorbis(sound: np.ndarray = A, rate: int = RATE) -> bytes:
    return encode(sound, "OGG", "VORBIS", rate)


def opus(sound: np.ndarray = A, rate: int = RATE) -> bytes:
    return encode(sound, "OGG", "OPUS", rate)


def pages(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, stop) of each page."""
    at = 0
    while at < len(data):
        stop = at + 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
        yield at, stop
        at = stop


def checksum(page: bytes) -> bytes:
    """The page with the checksum of what is in it (RFC 3533, section 6)."""
    page = page[:22] + bytes(4) + page[26:]
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", crc) + page[26:]


def changed(data: bytes, at: int, value: bytes, *, last_only: bool = False) -> bytes:
    """With other bytes at this place of the pages' headers."""
    found = [data[start:stop] for start, stop in pages(data)]
    for number in range(len(found)) if not last_only else [len(found) - 1]:
        page = found[number]
        found[number] = checksum(page[:at] + value + page[at + len(value) :])
    return b"".join(found)


def same_serial(data: bytes) -> bytes:
    return changed(data, 14, b"same")


def unfinished(data: bytes) -> bytes:
    """Its last page not marked as the last."""
    return changed(data, 5, b"\0", last_only=True)


@ways(
    vorbis=lambda: vorbis() + vorbis(B),
    opus=lambda: opus() + opus(B),
    three=lambda: vorbis() + vorbis(B) + vorbis(C),
    vorbis_and_opus=lambda: vorbis() + opus(B),
    same_serial_vorbis=lambda: same_serial(vorbis()) + same_serial(vorbis(B)),
    same_serial_opus=lambda: same_serial(opus()) + same_serial(opus(B)),
    other_rate=lambda: vorbis() + vorbis(sweep(1.5, 500.0, 44100), 44100),
    other_rate_of_opus=lambda: opus() + opus(sweep(1.5, 500.0, 48000), 48000),
    other_channels=lambda: vorbis() + vorbis(np.repeat(B, 2, axis=1)),
    stereo_first=lambda: opus(np.repeat(A, 2, axis=1)) + opus(B),
    tags_between=lambda: vorbis() + b"TAG" + bytes(125) + vorbis(B),
    zeros_between=lambda: opus() + bytes(5000) + opus(B),
    flac=lambda: encode(A, "FLAC") + encode(B, "FLAC"),
    three_flac=lambda: encode(A, "FLAC") + encode(B, "FLAC") + encode(C, "FLAC"),
    flac_other_rate=lambda: encode(A, "FLAC") + encode(sweep(1.5, 500.0, 44100, 2), "FLAC", rate=44100),
    flac_of_pipes=lambda: unknown(encode(A, "FLAC")) + unknown(encode(B, "FLAC")),
    flac_of_a_pipe_first=lambda: unknown(encode(A, "FLAC")) + encode(B, "FLAC"),
    flac_of_a_pipe_second=lambda: encode(A, "FLAC") + unknown(encode(B, "FLAC")),
)
def test_one_after_another(build, request: pytest.FixtureRequest) -> None:
    data = build()
    three = "three" in request.node.name
    waveform = whole(data, *([A, B, C] if three else [A, B]), slack_s=0.05)
    assert waveform.sample_rate == RATE
    assert waveform.duration_s == pytest.approx(3.7 if three else 2.5, abs=0.01)
    assert failure(data[: round(len(data) * 0.9)])[0] is Code.TRUNCATED


def test_parts_of_chained_files() -> None:
    for data in (vorbis() + vorbis(B), opus() + opus(B)):
        everything = decode(data).samples
        for start_s, length_s in ((0.5, 1.0), (1.25, 0.5), (0.25, 0.5), (1.0, 1.5), (2.3, None)):
            first = round(start_s * RATE)
            stop = len(everything) if length_s is None else first + round(length_s * RATE)
            part = decode(data, start_s=start_s, length_s=length_s).samples
            np.testing.assert_allclose(part, everything[first:stop], atol=2e-3)
        assert "2.500 s long" in failure(data, start_s=2.6, length_s=1.0)[1]


def test_the_right_channel_of_what_has_one() -> None:
    stereo = np.concatenate([A, -A], axis=1)
    found = decode(encode(stereo, "FLAC") + encode(B, "FLAC"), channel="right").samples
    np.testing.assert_allclose(found, np.concatenate([rounded(-A), rounded(B)]), atol=4e-5)


@pytest.mark.parametrize("make", [vorbis, opus, lambda s: mux(s, format="ogg", codec="libopus")])
def test_ogg_without_its_end(make) -> None:
    data = make(
        sweep(6.0) + 0.02 * np.random.default_rng(0).standard_normal((6 * RATE, 1)).astype(np.float32)
    )
    starts = [start for start, _ in pages(data)]
    assert len(starts) >= 4
    for stop in (*starts[3:], starts[3] + 100, len(data) - 1, len(data) - 200):
        code, message = failure(data[:stop])
        assert code is Code.TRUNCATED, message
    assert failure(unfinished(data))[0] is Code.TRUNCATED
    assert failure(unfinished(data) + data)[0] is Code.TRUNCATED
    assert decode(data[: starts[-1]], start_s=0.5, length_s=1.0).duration_s == 1.0


@ways(
    id3_before=lambda: id3(3000) + vorbis(),
    id3v1_after=lambda: vorbis() + b"TAG" + bytes(125),
    zeros_after=lambda: opus() + bytes(70_000),
    pictures_and_sound=lambda: opus_with_pictures(),
    flac=lambda: encode(A, "FLAC"),
    flac_after_id3=lambda: id3(3000) + encode(A, "FLAC"),
    flac_before_id3v1=lambda: encode(A, "FLAC") + b"TAG" + bytes(125),
    flac_before_zeros=lambda: encode(A, "FLAC") + bytes(70_000),
    flac_of_a_pipe=lambda: unknown(encode(A, "FLAC")),
    flac_of_a_pipe_after_id3=lambda: id3(3000) + unknown(encode(A, "FLAC")),
    flac_of_a_pipe_before_id3v1=lambda: unknown(encode(A, "FLAC")) + b"TAG" + bytes(125),
    flac_of_a_pipe_before_zeros=lambda: unknown(encode(A, "FLAC")) + bytes(70_000),
    flac_24_of_a_pipe=lambda: unknown(encode(A, "FLAC", "PCM_24")),
    flac_of_ffmpegs_pipe=lambda: mux(A, format="flac", codec="flac", pipe=True),
    wrong_sum=lambda: encode(A, "FLAC")[:26] + b"\x11" * 16 + encode(A, "FLAC")[42:],
)
def test_every_sample(build) -> None:
    whole(build(), A, slack_s=0.01)


def opus_with_pictures() -> bytes:
    """A second logical stream beside the sound, of a kind that nobody knows: its pages are passed over."""
    data = opus()
    cuts = [data[start:stop] for start, stop in pages(data)]
    other = struct.pack("<4sBBqIIIB", b"OggS", 0, 2, 0, 77, 0, 0, 1) + b"\x10" + b"fishead\0" + bytes(8)
    more = struct.pack("<4sBBqIIIB", b"OggS", 0, 4, 0, 77, 1, 0, 1) + b"\x01\0"
    return b"".join([cuts[0], checksum(other), *cuts[1:2], checksum(more), *cuts[2:]])


def unknown(flac: bytes, samples: int = 0) -> bytes:
    """With this count of samples in STREAMINFO, and no checksum: as encoders to a pipe leave it."""
    high = bytes([flac[21] & 0xF0 | samples >> 32])
    return flac[:21] + high + struct.pack(">I", samples & 0xFFFFFFFF) + bytes(16) + flac[42:]


@pytest.mark.parametrize("kept", [0.3, 0.66, 0.9, 0.99])
def test_cut_flac(kept: float) -> None:
    for data in (
        encode(A, "FLAC"),
        unknown(encode(A, "FLAC")),
        mux(A, format="flac", codec="flac", pipe=True),
    ):
        code, message = failure(data[: round(len(data) * kept)])
        assert code is Code.TRUNCATED, message


def test_flac_that_counts_wrong() -> None:
    data = encode(np.concatenate([A, B, A]), "FLAC")
    assert failure(unknown(data, 80_000)) == (
        Code.TRUNCATED,
        "the header gives 5.000 s of audio, it ends after 3.500 s",
    )
    found = decode(unknown(data, 16_000)).samples
    np.testing.assert_array_equal(found, decode(data).samples)


@pytest.mark.parametrize("place", [0.4, 0.6, 0.999])
def test_damaged_flac(place: float) -> None:
    for data in (encode(np.concatenate([A, B]), "FLAC"), unknown(encode(np.concatenate([A, B]), "FLAC"))):
        damaged = bytearray(data)
        damaged[round(len(data) * place) - 40] ^= 0x10
        code, message = failure(bytes(damaged))
        assert code in (Code.UNDECODABLE, Code.TRUNCATED), message
