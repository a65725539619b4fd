"""Loose audio files: each is a shard of one clip, known by its name, `.mat` by its head too."""

from __future__ import annotations

from pipeline.corpus.clips import Shard
from pipeline.corpus.readers.base import Reader
from pipeline.storage import Storage

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
_MATLAB = ".mat"  # holds anything; of sound, libsndfile wants this variable first
_MATLAB_SOUND, _HEAD_BYTES = b"samplerate", 256


class AudioReader(Reader):
    """Files of the formats that are decoded here."""

    name = "audio"
    endings = (*(f".{extension}" for extension in sorted(AUDIO_EXTENSIONS)), _MATLAB)
    one_clip = True

    @property
    def about(self) -> str:
        return "audio files (wav, flac, mp3, m4a, mkv and so on)"

    def is_doubtful(self, name: str) -> bool:
        return name.lower().endswith(_MATLAB)

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        with storage.open(shard.uri, block_size=_HEAD_BYTES) as file:
            return _MATLAB_SOUND in file.read(_HEAD_BYTES)
