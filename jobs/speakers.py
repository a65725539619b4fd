"""Finds the speakers of a corpus by the x-vectors of its table, and scores verification trials.

python jobs/speakers.py --table s3://lake/voices/ --output s3://lake/speakers/ --trials trials.txt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import tool
from pipeline.speakers.job import run
from pipeline.speakers.spec import SpeakersSpec
from pipeline.speakers.summary import format_summary

main = tool(SpeakersSpec, run, format_summary, program="jobs/speakers.py")

if __name__ == "__main__":
    raise SystemExit(main())
