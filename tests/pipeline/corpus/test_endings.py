"""What the decoders read is taken for audio by its ending."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import soundfile

from pipeline.audio.recording import decode
from pipeline.corpus.listing import discover
from pipeline.corpus.readers import recognise
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def encoded(container: str, codec: str, rate: int) -> bytes:
    """A second of a tone, by FFmpeg."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None, :].copy(), format="fltp", layout="mono")
        frame.sample_rate = RATE
        settings: dict[str, Any] = {"format": stream.codec_context.codec.audio_formats[0].name}
        settings |= {"layout": "mono", "rate": rate, "frame_size": stream.codec_context.frame_size or 1024}
        planar = av.AudioResampler(**settings)
        for part in (*planar.resample(frame), *planar.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def check(name: str, data: bytes) -> None:
    reader = recognise(name)
    assert reader is not None
    assert reader.name == "audio"
    waveform = decode(data)
    assert waveform.duration_s == pytest.approx(1.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(waveform.samples))
    assert np.argmax(spectrum) / waveform.duration_s == pytest.approx(440, abs=5)


@pytest.mark.parametrize(
    ("ending", "container", "codec", "rate"),
    [
        ("m4b", "ipod", "aac", 16_000),
        ("mov", "mov", "aac", 16_000),
        ("mkv", "matroska", "aac", 16_000),
        ("mka", "matroska", "libopus", 48_000),
        ("weba", "webm", "libopus", 48_000),
        ("wv", "wv", "wavpack", 16_000),
        ("tta", "tta", "tta", 16_000),
        ("eac3", "eac3", "eac3", 48_000),
        ("mp2", "mp2", "mp2", 16_000),
        ("avi", "avi", "pcm_s16le", 16_000),
        ("flv", "flv", "libmp3lame", 44_100),
        ("3g2", "3g2", "aac", 16_000),
        ("ts", "mpegts", "aac", 16_000),
        ("mpg", "mpeg", "mp2", 16_000),
        ("vob", "vob", "ac3", 48_000),
        ("latm", "latm", "aac", 16_000),
    ],
)
def test_ffmpeg_reads_it(ending: str, container: str, codec: str, rate: int) -> None:
    check(f"x.{ending}", encoded(container, codec, rate))


@pytest.mark.parametrize(
    ("ending", "format"),
    [
        *(("wave", "WAV"), ("bwf", "WAV"), ("snd", "AU"), ("nist", "NIST"), ("sph", "NIST"), ("voc", "VOC")),
        *(("avr", "AVR"), ("paf", "PAF"), ("pvf", "PVF"), ("sds", "SDS"), ("8svx", "SVX"), ("sf", "IRCAM")),
    ],
)
def test_libsndfile_reads_it(tmp_path: Path, ending: str, format: str) -> None:
    path = tmp_path / "x"
    soundfile.write(path, TONE, RATE, format=format, subtype="PCM_16")
    check(f"X.{ending.upper()}", path.read_bytes())


@pytest.mark.parametrize("format", ["MAT4", "MAT5"])
def test_matlab_files_are_clips_where_they_are_sound(tmp_path: Path, format: str) -> None:
    soundfile.write(tmp_path / "sound", TONE, RATE, format=format, subtype="PCM_16")
    check("x.mat", (tmp_path / "sound").read_bytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "sound").rename(tmp_path / "in" / "sound.MAT")
    scipy.io.savemat(tmp_path / "in" / "other.mat", {"labels": TONE}, format=format[-1])
    (tmp_path / "in" / "empty.mat").touch()
    aside: Counter[str] = Counter()
    shards = discover([str(tmp_path / "in")], STORAGE, outputs=[], left_aside=aside)
    assert [shard.name for shard in shards] == ["sound.MAT"]
    assert aside == {".mat": 2}
