"""The formats of an export, a file each (SRT and WebVTT share one), that register when imported."""

from pipeline.export.document import FORMATS
from pipeline.export.formats import ctm, jsonl, rttm, subtitles, textgrid

__all__ = ["FORMATS", "ctm", "jsonl", "rttm", "subtitles", "textgrid"]
