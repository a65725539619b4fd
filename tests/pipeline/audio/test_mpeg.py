"""MP3 and AAC in bare frames: with and without a header that counts them, joined, tagged, cut, damaged."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from pipeline.audio import sound_file
from pipeline.audio.containers import mpeg
from pipeline.audio.recording import Recording, decode
from pipeline.errors import Code
from tests.pipeline.audio.sounds import RATE, A, B, encode, failure, id3, mux, place, sweep, ways, whole

SPEECHLIKE = A + (0.02 * np.random.default_rng(0).standard_normal(A.shape)).astype(np.float32)


def counted(sound: np.ndarray = A) -> bytes:
    """Variable bit rate behind a Xing header; nothing else."""
    return encode(sound, "MP3", rate=RATE)


def bare(sound: np.ndarray = A) -> bytes:
    """Its frames without the first, which counts the others."""
    data = counted(sound)
    return data[mpeg.frame(data).size :]


def recounted(data: bytes, frames: float, size: float = 1.0) -> bytes:
    """With these times the frames, and bytes, in the Xing header."""
    at = data.index(b"Xing") + 8
    given = struct.unpack(">II", data[at : at + 8])
    return data[:at] + struct.pack(">II", round(given[0] * frames), round(given[1] * size)) + data[at + 8 :]


def vbri(sound: np.ndarray = A, frames: float = 1.0) -> bytes:
    """Fraunhofer's header in the place of Xing's."""
    data = bytearray(counted(sound))
    count = struct.unpack(">I", data[data.index(b"Xing") + 8 :][:4])[0]
    size = mpeg.frame(data).size
    data[4:size] = bytes(size - 4)
    data[36:62] = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(data), round(count * frames)) + bytes(8)
    return bytes(data)


APE = struct.pack("<8sIIIIQ", b"APETAGEX", 2000, 60_032, 1, 0xA000_0000, 0) + b"\x11" * 60_000
ID3V1 = b"TAG" + bytes(125)
LYRICS = b"LYRICSBEGIN" + b"la " * 5000 + b"015011LYRICS200"


@ways(
    counted=counted,
    of_ffmpeg=lambda: mux(A, format="mp3", codec="libmp3lame"),
    of_ffmpegs_pipe=lambda: mux(A, format="mp3", codec="libmp3lame", pipe=True),
    bare=bare,
    vbri=vbri,
    layer_2=lambda: mux(A, format="mp2", codec="mp2"),
    cover_before=lambda: id3(150_000) + bare(),
    cover_before_a_count=lambda: id3(150_000) + counted(),
    two_tags_before=lambda: id3(700) + id3(70_000) + bare(),
    id3v1_after=lambda: bare() + ID3V1,
    ape_after=lambda: bare() + APE,
    lyrics_after=lambda: bare() + LYRICS + ID3V1,
    all_tags_after_a_count=lambda: counted() + APE + LYRICS + ID3V1,
    zeros_before=lambda: bytes(1000) + counted(),
    zeros_after=lambda: bare() + bytes(100_000),
    zeros_after_a_count=lambda: counted() + bytes(100_000),
    junk_before=lambda: b"\x12\x34" * 500 + counted(),
    junk_after=lambda: bare() + np.random.default_rng(1).bytes(5000).replace(b"\xff", b"\0"),
    half_a_header_after=lambda: bare() + b"\xff\xfb\x90",
    counts_no_bytes=lambda: recounted(counted(), 1.0, 0.0),
    adts=lambda: mux(A, format="adts", codec="aac"),
    adts_among_tags=lambda: id3(3000) + mux(A, format="adts", codec="aac") + ID3V1,
)
def test_every_frame(build) -> None:
    waveform = whole(build(), A)
    assert (waveform.sample_rate, waveform.channels) == (RATE, 1)


@ways(
    counted=lambda: counted() + counted(B),
    bare=lambda: bare() + bare(B),
    bare_then_counted=lambda: bare() + counted(B),
    counted_then_bare=lambda: counted() + bare(B),
    tagged=lambda: id3(500) + counted() + ID3V1 + id3(2000) + counted(B) + ID3V1,
    with_covers=lambda: id3(50_000) + counted() + id3(50_000) + counted(B),
    padded=lambda: counted() + bytes(3000) + counted(B),
    of_ffmpeg=lambda: mux(A, format="mp3", codec="libmp3lame") + mux(B, format="mp3", codec="libmp3lame"),
    other_rate=lambda: counted() + encode(sweep(1.5, 500.0, 44100), "MP3", rate=44100),
    other_channels=lambda: counted() + counted(np.repeat(B, 2, axis=1)),
    adts=lambda: mux(A, format="adts", codec="aac") + mux(B, format="adts", codec="aac"),
    adts_other_rate=lambda: (
        mux(A, format="adts", codec="aac")
        + mux(sweep(1.5, 500.0, 44100), format="adts", codec="aac", rate=44100)
    ),
)
def test_joined(build) -> None:
    waveform = whole(build(), A, B)
    assert waveform.duration_s == pytest.approx(2.5, abs=0.3)


@ways(
    counted=counted,
    tagged=lambda: id3(500) + counted() + ID3V1,
    bare=bare,
    vbri=vbri,
    of_ffmpeg=lambda: mux(A, format="mp3", codec="libmp3lame"),
    of_ffmpegs_pipe=lambda: mux(A, format="mp3", codec="libmp3lame", pipe=True),
    layer_2=lambda: mux(A, format="mp2", codec="mp2"),
    adts=lambda: mux(A, format="adts", codec="aac"),
    second_of_two=lambda: counted() + counted(B),
    second_of_two_bare=lambda: bare() + bare(B),
)
@pytest.mark.parametrize("kept", [0.62, 0.8, 0.9])
def test_cut(build, kept: float) -> None:
    data = build()
    code, message = failure(data[: round(len(data) * kept)])
    assert code is Code.TRUNCATED, message


def test_a_count_of_more_than_is_there() -> None:
    code, message = failure(recounted(counted(), 2.0))
    assert (code, message) == (Code.TRUNCATED, "the header gives 2.080 s of audio, it ends after 1.011 s")
    assert failure(recounted(counted(), 1.0, 2.0))[0] is Code.TRUNCATED
    assert failure(vbri(frames=2.0))[0] is Code.TRUNCATED
    # A frame or two too many are an encoder's mistake, whatever stands behind the frames.
    for behind in (b"", ID3V1, APE + ID3V1, bytes(900)):
        assert decode(recounted(counted(), 1.04) + behind).duration_s == pytest.approx(1.0, abs=0.08)
    assert failure(id3(150_000)[:80_000]) == (
        Code.TRUNCATED,
        "nothing follows the tags that the file begins with",
    )


@pytest.mark.parametrize("size", [1.0, 0.5])
def test_a_count_of_less_than_is_there(size: float) -> None:
    """FFmpeg goes on; at the seam it takes as much for padding as the encoder says there is."""
    data = counted(np.concatenate([A, B]))
    found = decode(recounted(data, 0.4, size)).samples
    wanted = decode(data).samples
    assert len(found) == pytest.approx(len(wanted), abs=0.1 * RATE)
    assert place(found, B) == pytest.approx(RATE, abs=0.1 * RATE)


def test_damage() -> None:
    loud = np.concatenate([SPEECHLIKE] * 4)
    for data in (counted(loud), bare(loud)):
        middle = len(data) // 2
        for size in (200, 400, 1500):  # the first costs no more frames than a header may count too many
            code, message = failure(data[:middle] + b"\x55" * size + data[middle + size :])
            assert code is Code.UNDECODABLE, message
            assert "data are damaged" in message
    for data in (counted(), bare()):
        code, message = failure(data + b"\x12\x34" * 500 + data)  # not as if the first were all
        assert (code, "data are damaged after 1.0" in message) == (Code.UNDECODABLE, True), message
    data = counted(loud)
    code, message = failure(data[:-1500] + np.random.default_rng(0).bytes(1500))
    assert code in (Code.UNDECODABLE, Code.TRUNCATED), message


def test_in_blocks_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a frame leaves to the next does not get lost between blocks."""
    for sound in (A, SPEECHLIKE):
        data = counted(sound)
        one = decode(data).samples
        with monkeypatch.context() as patch:
            patch.setattr(sound_file, "BLOCK_VALUES", 1000)
            with Recording(data) as recording:
                np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), one)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["MP3", "OGG", "OPUS"])
@pytest.mark.parametrize("start_s", [0.0, 0.1, 2.013, 7.0, 9.7])
def test_parts_are_those_of_the_whole(format: str, start_s: float) -> None:
    sound = sweep(10.0) + 0.02 * np.random.default_rng(0).standard_normal((160_000, 1)).astype(np.float32)
    for kind in (sound, sweep(10.0)):  # the second in few bytes: frames refer far back
        data = encode(kind, "OGG", "OPUS") if format == "OPUS" else encode(kind, format)
        first = round(start_s * RATE)
        part = decode(data, start_s=start_s, length_s=0.25).samples
        np.testing.assert_allclose(part, decode(data).samples[first : first + RATE // 4], atol=2e-3)


def test_a_part_of_joined_files() -> None:
    data = counted() + counted(B)
    everything = decode(data).samples
    for start_s, length_s in ((0.5, 1.0), (1.25, 0.5), (0.25, 0.5), (1.0, 1.5)):
        first, wanted = round(start_s * RATE), round(length_s * RATE)
        part = decode(data, start_s=start_s, length_s=length_s).samples
        np.testing.assert_allclose(part, everything[first : first + wanted], atol=2e-3)
    assert failure(data, start_s=2.0, length_s=1.5)[0] is Code.TRUNCATED


def test_ordinary_mp3_is_soundfiles() -> None:
    for data in (counted(), counted(SPEECHLIKE), mux(A, format="mp3", codec="libmp3lame")):
        wanted, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        np.testing.assert_array_equal(decode(data).samples, wanted)
