"""Decoding: values against soundfile and torchaudio, and every way in which audio can be broken."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from pipeline.audio.recording import Recording, decode
from pipeline.audio.resampling import resample
from pipeline.errors import ClipFailedError, Code, Stage


def noise(seconds: float = 3.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    shape = (round(seconds * rate), channels)
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 16000, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, samples.shape[1], subtype, format=format) as sound:
        for first in range(0, len(samples), rate):  # libsndfile's OGG encoder crashes on long writes
            sound.write(samples[first : first + rate])
    return file.getvalue()


def expected(data: bytes | Path) -> np.ndarray:
    """By soundfile and torchaudio alone: the mean of all channels at 16 kHz."""
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1, dtype=np.float32))
    return torchaudio.functional.resample(mono, rate, 16000).numpy()


def failure(data: bytes, **options) -> tuple[Code, str]:
    with pytest.raises(ClipFailedError) as caught:
        decode(data, **options)
    assert caught.value.error.stage is Stage.DECODE
    return caught.value.error.code, caught.value.error.message


@pytest.mark.parametrize(
    ("name", "rate", "channels", "duration_s"),
    [
        ("jfk.flac", 44100, 2, 11.0),
        ("jfk.mp3", 16000, 1, 11.0),
        ("audio-mono-8-bit-44100Hz.wav", 44100, 1, 121052 / 44100),
        ("audio-mono-16-bit-44100Hz.aiff", 44100, 1, 121052 / 44100),
        ("audio-stereo-24-bit-44100Hz.flac", 44100, 2, 121052 / 44100),
        ("audio-stereo-32-bit-44100Hz.wav", 44100, 2, 121052 / 44100),
    ],
)
def test_real_files(shared_data: Path, name: str, rate: int, channels: int, duration_s: float) -> None:
    path = shared_data / "formats" / name
    waveform = decode(path.read_bytes())
    assert (waveform.sample_rate, waveform.channels) == (rate, channels)
    assert waveform.duration_s == pytest.approx(duration_s, abs=1e-9)
    assert waveform.samples.dtype == np.float32
    np.testing.assert_array_equal(waveform.samples, expected(path))
    assert not waveform.silent


def test_m4a_through_ffmpeg_is_the_same_speech(shared_data: Path) -> None:
    data = (shared_data / "formats" / "jfk_441khz.m4a").read_bytes()
    waveform = decode(data)
    assert waveform.sample_rate == 44100
    assert waveform.duration_s == pytest.approx(11.0, abs=0.1)
    flac = expected(shared_data / "formats" / "jfk.flac")
    length = min(len(flac), len(waveform.samples))
    spectrum = np.fft.rfft(flac, 2 * length) * np.conj(np.fft.rfft(waveform.samples, 2 * length))
    best = np.fft.irfft(spectrum).max() / np.linalg.norm(flac) / np.linalg.norm(waveform.samples)
    assert best > 0.95
    part = decode(data, start_s=2.0, length_s=1.5)
    np.testing.assert_allclose(
        part.samples[200:-200], waveform.samples[32200 : 32000 + 24000 - 200], atol=1e-5
    )


def test_broken_real_files(shared_data: Path) -> None:
    formats = shared_data / "formats"
    code, message = failure((formats / "absurd_rate.wav").read_bytes())
    assert code is Code.BAD_SAMPLE_RATE
    assert "1092676" in message
    assert failure((formats / "bad_header.wav").read_bytes())[0] in (Code.UNDECODABLE, Code.TRUNCATED)


def test_downmix() -> None:
    stereo = (
        np.tile(np.float32([[0.25, -0.5]]), (1600, 1)) * np.linspace(0, 1, 1600, dtype=np.float32)[:, None]
    )
    data = encode(stereo, subtype="FLOAT")
    for channel, wanted in {
        "mean": stereo.mean(axis=1, dtype=np.float32),
        "left": stereo[:, 0],
        "right": stereo[:, 1],
        "1": stereo[:, 1],
    }.items():
        np.testing.assert_array_equal(decode(data, channel=channel).samples, wanted)
    code, message = failure(data, channel="2")
    assert code is Code.UNDECODABLE
    assert "channel 2" in message


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_is_torchaudios(rate: int) -> None:
    data = encode(noise(0.5, rate), rate, subtype="FLOAT")
    np.testing.assert_array_equal(decode(data).samples, expected(data))


def test_a_rate_prime_to_16000_is_resampled_in_little_memory() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44101) / 44101).astype(np.float32)
    resampled = resample(tone, 44101)
    assert abs(len(resampled) - 16000) <= 1
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(resampled)) / 16000)
    np.testing.assert_allclose(resampled[100:-100], wanted[100:-100], atol=0.01)


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "FLAC", "OGG", "MP3", "RF64"])
def test_cut_in_the_middle(format: str) -> None:
    data = encode(noise(), format=format)
    assert decode(data).duration_s == pytest.approx(3.0, abs=0.1)
    code, message = failure(data[: len(data) // 2])
    assert code is Code.TRUNCATED, message


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_wav_of_unknown_size_is_fine(size: int) -> None:
    data = bytearray(encode(noise(1.0)))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    np.testing.assert_array_equal(decode(bytes(data)).samples, expected(encode(noise(1.0))))


def test_damage_in_the_middle_of_flac_is_not_truncation() -> None:
    data = bytearray(encode(noise(20.0), format="FLAC"))
    middle = len(data) // 2
    data[middle : middle + 50000] = bytes(50000)
    code, _ = failure(bytes(data))
    assert code in (Code.UNDECODABLE, Code.TRUNCATED)


def test_absurd_length_in_a_header_allocates_nothing() -> None:
    data = bytearray(encode(noise(1.0), format="FLAC"))
    data[21] |= 0x0F  # STREAMINFO's count of samples: 36 bits, the upper four here
    data[22:26] = b"\xff\xff\xff\xff"
    assert failure(bytes(data), max_duration_s=60.0)[0] is Code.TRUNCATED


def test_values_that_are_not_audio() -> None:
    assert failure(b"")[0] is Code.EMPTY
    assert failure(encode(noise(0.0)))[0] is Code.EMPTY
    assert failure(b"<html>not found</html>" * 20)[0] is Code.UNDECODABLE
    samples = noise(1.0)
    samples[77] = np.nan
    code, message = failure(encode(samples, subtype="FLOAT"))
    assert code is Code.NON_FINITE
    assert "sample 77" in message


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_too_long(format: str) -> None:
    data = encode(noise(2.0), format=format)
    assert decode(data, max_duration_s=2.0).duration_s == 2.0
    assert failure(data, max_duration_s=1.9)[0] is Code.TOO_LONG
    assert decode(data, max_duration_s=1.0, start_s=0.5, length_s=1.0).duration_s == 1.0


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
@pytest.mark.parametrize("as_file", [False, True])
def test_part(format: str, as_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(encode(noise(), format=format))
    whole, _ = soundfile.read(path, dtype="float32")
    with path.open("rb") as file:
        part = decode(file if as_file else path.read_bytes(), start_s=1.25, length_s=0.5)
    np.testing.assert_array_equal(part.samples, whole[20000:28000])
    assert part.duration_s == 0.5
    rest = decode(path.read_bytes(), start_s=2.5)
    np.testing.assert_array_equal(rest.samples, whole[40000:])


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_part_beyond_the_end(format: str) -> None:
    """Half a second too long is how manifests round, and what lhotse lets pass: the part is what is there."""
    data = encode(noise(), format=format)
    everything = decode(data)
    for start_s, length_s in ((0.0, 3.06), (2.0, 1.01), (2.0, 1.49), (2.75, 0.7)):
        part = decode(data, start_s=start_s, length_s=length_s)
        assert part.duration_s == 3.0 - start_s
        np.testing.assert_allclose(part.samples, everything.samples[round(start_s * 16000) :], atol=2e-3)
    code, message = failure(data, start_s=2.0, length_s=1.51)
    assert (code, message) == (
        Code.TRUNCATED,
        "the part from 2 s should be 1.51 s long, the audio ends after 1.000 s of it",
    )
    for start_s in (3.0, 4.0):
        code, message = failure(data, start_s=start_s, length_s=1.0)
        assert code is Code.EMPTY
        assert "3.000 s long" in message


def test_parts_of_a_file_that_is_cut() -> None:
    """What is there of it can be had; what may have been lost cannot."""
    data = encode(noise(4.0))[: 2 * 16000 * 2]
    assert decode(data, start_s=0.5, length_s=1.0).duration_s == 1.0
    for start_s, length_s in ((1.5, 0.6), (1.5, None), (3.0, 0.5)):
        assert failure(data, start_s=start_s, length_s=length_s)[0] is Code.TRUNCATED


def test_parts_that_are_none() -> None:
    data = encode(noise())
    for length_s in (0.0, 1e-9):
        code, message = failure(data, start_s=0.5, length_s=length_s)
        assert (code, message) == (
            Code.EMPTY,
            f"the part asked for is {length_s:g} s long, less than a sample",
        )
    assert failure(data, start_s=-1.0)[0] is Code.BAD_RECORD
    assert failure(data, start_s=1e300, length_s=1.0)[0] is Code.EMPTY


def test_a_file_that_cannot_be_read_is_the_storages_error() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 30000:
                raise OSError("connection lost")
            return super().read(size)

    with pytest.raises(OSError, match="connection lost"):
        decode(Failing(encode(noise())))


def test_silence() -> None:
    assert decode(encode(np.full((44100, 1), 0.5, np.float32), 44100)).silent
    assert decode(encode(noise(1.0) * 1e-7, subtype="FLOAT")).silent
    assert not decode(encode(noise(1.0) * 1e-2, subtype="FLOAT")).silent


def streamed(data: bytes, **options) -> Recording:
    """Read to its end in blocks, which `decode` must agree with."""
    whole = decode(data, **options)
    with Recording(data, **options) as recording:
        blocks = list(recording.blocks())
        samples = np.concatenate(blocks)
        assert len(samples) - len(whole.samples) in (0, 1)  # torchaudio rounds a length in single precision
        np.testing.assert_allclose(samples[: len(whole.samples)], whole.samples, atol=1e-6)
        assert (recording.duration_s, recording.silent) == (whole.duration_s, whole.silent)
        assert max(len(block) for block in blocks) <= 33 * 2 * 16000
        return recording


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (44100, 1), (44100, 2)])
@pytest.mark.slow
def test_streamed_as_whole(format: str, rate: int, channels: int) -> None:
    data = encode(noise(70.3, rate, channels), rate, format)
    recording = streamed(data)
    assert (recording.sample_rate, recording.channels) == (rate, channels)
    streamed(data, start_s=10.25, length_s=50.0, channel="left")


def test_streamed_m4a(shared_data: Path) -> None:
    streamed((shared_data / "formats" / "jfk_441khz.m4a").read_bytes())


@pytest.mark.parametrize("format", ["MP3", "OGG", "FLAC"])
def test_a_stream_is_soundfiles_in_one_read(format: str) -> None:
    data = encode(noise(70.0), format=format)
    with Recording(data) as recording:
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), expected(data))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_stream_that_is_cut_says_so_at_its_end(format: str) -> None:
    data = encode(noise(100.0), format=format)
    with Recording(data[: len(data) // 2]) as recording:
        blocks = recording.blocks()
        assert len(next(blocks)) > 16000
        with pytest.raises(ClipFailedError) as caught:
            list(blocks)
    assert caught.value.error.code is Code.TRUNCATED


def test_a_bad_sample_far_into_a_stream() -> None:
    samples = noise(100.0)
    samples[1_500_000] = np.inf
    code, message = failure(encode(samples, subtype="FLOAT"))
    assert code is Code.NON_FINITE
    assert "sample 1500000, at 93.750 s, is inf" in message


def test_longer_than_decodes_only_once() -> None:
    samples = noise(100.0)
    data = encode(samples, subtype="FLOAT")
    with Recording(data) as recording:
        assert recording.longer_than(60.0)
        assert recording.duration_s < 100.0
        np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), samples[:, 0])
        assert recording.duration_s == 100.0
    with Recording(data) as recording:
        assert not recording.longer_than(100.0)
        np.testing.assert_array_equal(recording.whole(), samples[:, 0])


def test_silence_of_a_stream_is_known_at_its_end() -> None:
    samples = np.zeros((100 * 16000, 1), np.float32)
    streamed(encode(samples))
    samples[-1] = 0.5
    assert not streamed(encode(samples)).silent
