"""Writes an output table as files that other tools read: RTTM, CTM, SRT, WebVTT, JSONL, Praat TextGrid.

python jobs/export.py --table s3://lake/transcripts/ --format srt --output subtitles/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import tool
from pipeline.export.job import export, format_summary
from pipeline.export.spec import ExportSpec

main = tool(ExportSpec, export, format_summary, program="jobs/export.py")

if __name__ == "__main__":
    raise SystemExit(main())
