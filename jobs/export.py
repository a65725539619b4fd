"""Writes an output table as files that other tools read: RTTM, CTM, SRT, WebVTT, JSONL, Praat TextGrid.

python jobs/export.py --table s3://lake/transcripts/ --format srt --output subtitles/
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from pipeline.cli import fail, read_spec
from pipeline.errors import JobError
from pipeline.export.run import export, for_the_eye
from pipeline.export.spec import ExportSpec

PROGRAM = "jobs/export.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad configuration."""
    try:
        spec = read_spec(ExportSpec, sys.argv[1:] if arguments is None else arguments, program=PROGRAM)
        done = export(spec)
    except JobError as problem:
        return fail(PROGRAM, problem)
    print(for_the_eye(done))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
