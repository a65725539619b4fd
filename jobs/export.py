"""Writes an output table as files that other tools read: RTTM, CTM, SRT, WebVTT, JSONL, Praat TextGrid.

python jobs/export.py --table s3://lake/transcripts/ --format srt --output subtitles/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import Tool, tool
from pipeline.export.spec import ExportSpec


def _load() -> Tool:
    from pipeline.export.job import export, format_summary

    return Tool(export, format_summary)


main = tool(ExportSpec, _load, program="jobs/export.py")

if __name__ == "__main__":
    raise SystemExit(main())
