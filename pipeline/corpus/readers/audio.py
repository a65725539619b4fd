"""Loose audio files: each is a shard of one clip, known by its name and opened only to be decoded."""

from __future__ import annotations

from pipeline.corpus.readers.base import Reader

_SOUNDFILE = (
    *("wav", "wave", "bwf", "rf64", "w64", "flac", "mp3", "mp2", "mpga", "ogg", "oga", "opus"),
    *("aiff", "aif", "aifc", "au", "snd", "caf", "sph", "nist", "voc"),
    *("avr", "paf", "pvf", "sds", "svx", "8svx", "sf"),
)
_FFMPEG = (
    *("m4a", "m4b", "m4r", "mp4", "m4v", "f4v", "mov", "qt", "3gp", "3gpp", "3g2", "aac", "adts", "latm"),
    *("mkv", "mka", "webm", "weba", "wma", "wmv", "asf", "avi", "flv", "ogv", "ogx", "ogm", "spx"),
    *("mpg", "mpeg", "vob", "ts", "mts", "m2ts", "mxf", "nut", "wtv", "ra", "rm", "rmvb"),
    *("amr", "awb", "ac3", "eac3", "ec3", "dts", "dtshd", "thd", "mlp"),
    *("ape", "wv", "tta", "tak", "shn", "mpc", "mpp", "dsf", "dff", "oma", "aa3"),
)
AUDIO_EXTENSIONS = frozenset({*_SOUNDFILE, *_FFMPEG})


class AudioReader(Reader):
    """Files of the formats that are decoded here."""

    name = "audio"
    endings = tuple(f".{extension}" for extension in sorted(AUDIO_EXTENSIONS))
    one_clip = True

    @property
    def about(self) -> str:
        return "audio files (wav, flac, mp3, m4a, mkv and so on)"
