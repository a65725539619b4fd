"""Sounds that can be told apart, and files of them, built byte by byte where no library writes them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from pipeline.audio.recording import Waveform, decode
from pipeline.errors import ClipFailedError, Code, Stage

RATE = 16000


def sweep(seconds: float = 1.0, low: float = 200.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A tone that rises from `low` to three times that, (n, channels) float32: no part looks like another."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * low * (time + time**2 / max(seconds, 1e-9))
    return np.tile((0.4 * np.sin(phase)).astype(np.float32)[:, None], (1, channels))


A, B = sweep(1.0, 200.0), sweep(1.5, 500.0)


def encode(samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    """By libsndfile."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, samples.shape[1], subtype, format=format) as sound:
        for first in range(0, len(samples), rate):  # libsndfile's OGG encoder crashes on long writes
            sound.write(samples[first : first + rate])
    return file.getvalue()


class _Pipe:
    """What is written to it cannot be changed any more."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def mux(
    *sounds: np.ndarray,
    format: str,
    codec: str,
    rate: int = RATE,
    pipe: bool = False,
    video: bool = False,
    **options: str,
) -> bytes:
    """By FFmpeg: a file with a stream for each of the sounds, behind one of pictures for `video`."""
    file: Any = _Pipe() if pipe else io.BytesIO()
    with av.open(file, "w", format=format, options=options) as container:
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width = pictures.height = 32
        streams = [container.add_stream(codec, rate=rate) for _ in sounds]
        layouts = ["mono" if sound.shape[1] == 1 else "stereo" for sound in sounds]
        for stream, layout in zip(streams, layouts, strict=True):
            stream.layout = layout
        container.start_encoding()
        if video:
            for _ in range(20):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode())
        for stream, sound, layout in zip(streams, sounds, layouts, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), "fltp", layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return file.data if pipe else file.getvalue()


def chunk(name: bytes, data: bytes, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(data) if size is None else size) + data + bytes(len(data) % 2)


def fmt(rate: int = RATE, channels: int = 1, bits: int = 16, tag: int = 1, extra: bytes = b"") -> bytes:
    align = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits) + extra)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def pcm(samples: np.ndarray, kind: str = "<i2") -> bytes:
    """Of the one channel that there is; what `rounded` gives back."""
    return np.round(samples[:, 0] * 32767).astype(kind).tobytes()


def rounded(samples: np.ndarray) -> np.ndarray:
    return (np.round(samples[:, 0] * 32767) / 32768).astype(np.float32)


def id3(size: int) -> bytes:
    """A tag of a cover picture, in which there are beginnings of MPEG frames."""
    picture = (b"\xff\xfb\x90\x64" + bytes(60)) * (size // 64 + 1)
    body = b"APIC" + struct.pack(">I", size) + b"\0\0" + picture[:size]
    return b"ID3\3\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


def whole(
    data: bytes, *sounds: np.ndarray, exact: bool = False, slack_s: float = 0.15, **options: Any
) -> Waveform:
    """Decodes the data, and requires that it be these sounds, one after another, and nothing more."""
    waveform = decode(data, **options)
    wanted = np.concatenate([sound.mean(axis=1) for sound in sounds])
    found = waveform.samples
    if exact:
        np.testing.assert_allclose(found, rounded(np.concatenate(sounds)), atol=4e-5)  # two steps
        return waveform
    if waveform.sample_rate == RATE or len(sounds) == 1:
        assert len(found) == pytest.approx(len(wanted), abs=slack_s * RATE * len(sounds))
    first = 0
    for sound in sounds:
        assert place(found, sound) == pytest.approx(first, abs=slack_s * RATE * len(sounds))
        first += len(sound)
    return waveform


def place(found: np.ndarray, sound: np.ndarray) -> int:
    """Where in `found` the sound begins; it must be there from its beginning to its end."""
    mono = sound.mean(axis=1)
    size = len(found) + len(mono)
    spectrum = np.fft.rfft(found, size) * np.conj(np.fft.rfft(mono, size))
    at = int(np.fft.irfft(spectrum, size)[: len(found)].argmax())
    step = len(mono) // 8
    for first in range(0, len(mono) - step, step):
        there, wanted = found[at + first : at + first + step], mono[first : first + step]
        likeness = float(there @ wanted[: len(there)]) / (
            np.linalg.norm(there) * np.linalg.norm(wanted) + 1e-9
        )
        assert likeness > 0.8, f"the sound is not there {first / RATE:.3f} s in: {likeness:.2f}"
    return at


def failure(data: bytes, **options: Any) -> tuple[Code, str]:
    with pytest.raises(ClipFailedError) as caught:
        decode(data, **options)
    error = caught.value.error
    assert error.stage is Stage.DECODE
    for internal in ("psf_", "Internal", "NoneType", "object has no", "libsndfile's"):
        assert internal not in error.message
    return error.code, error.message


def ways(**builders: Callable[[], bytes]) -> Any:
    """Parametrises a test over files, built when they are asked for."""
    return pytest.mark.parametrize(
        "build", [pytest.param(build, id=name) for name, build in builders.items()]
    )
