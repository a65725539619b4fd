"""Writes an output table as files that other tools read: RTTM, CTM, SRT, WebVTT, JSONL, Praat TextGrid.

python jobs/export.py --table s3://lake/transcripts/ --format srt --output subtitles/
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_tool
from pipeline.export.job import export, format_summary
from pipeline.export.spec import ExportSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_tool`."""
    return run_tool(ExportSpec, export, format_summary, arguments, program="jobs/export.py")


if __name__ == "__main__":
    raise SystemExit(main())
