"""Loose audio files: each is a shard of one clip, known by its name and opened only to be decoded."""

from __future__ import annotations

from pipeline.corpus.readers.base import Reader

_SOUNDFILE = (
    "wav",
    "flac",
    "mp3",
    "ogg",
    "oga",
    "opus",
    "aiff",
    "aif",
    "aifc",
    "au",
    "caf",
    "w64",
    "rf64",
    "sph",
)
_FFMPEG = "m4a", "mp4", "aac", "webm", "mka", "wma", "amr", "3gp", "ac3"
AUDIO_EXTENSIONS = frozenset({*_SOUNDFILE, *_FFMPEG})


class AudioReader(Reader):
    """Files of the formats that are decoded here."""

    name = "audio"
    endings = tuple(f".{extension}" for extension in sorted(AUDIO_EXTENSIONS))
    one_clip = True

    @property
    def about(self) -> str:
        return f"audio files ({', '.join(sorted(AUDIO_EXTENSIONS)[:8])}, …)"
