"""Finds the speakers of a corpus by the x-vectors of its table, and scores verification trials.

python jobs/speakers.py --table s3://lake/voices/ --output s3://lake/speakers/ --trials trials.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_tool
from pipeline.speakers.job import run
from pipeline.speakers.spec import SpeakersSpec
from pipeline.speakers.summary import format_summary


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_tool`."""
    return run_tool(SpeakersSpec, run, format_summary, arguments, program="jobs/speakers.py")


if __name__ == "__main__":
    raise SystemExit(main())
