"""The formats of an export, a file each (SRT and WebVTT share one), that register when imported."""

from pipeline.export.document import FORMATS
from pipeline.export.formats import delta
from pipeline.export.formats.lists import ctm, jsonl, lhotse, nemo, rttm
from pipeline.export.formats.timelines import audacity, elan, subtitles, textgrid

__all__ = [
    "FORMATS",
    "audacity",
    "ctm",
    "delta",
    "elan",
    "jsonl",
    "lhotse",
    "nemo",
    "rttm",
    "subtitles",
    "textgrid",
]
