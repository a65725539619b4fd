"""Finds the speakers of a corpus by the x-vectors of its table, and scores verification trials.

python jobs/speakers.py --table s3://lake/voices/ --output s3://lake/speakers/ --trials trials.txt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import Tool, tool
from pipeline.speakers.spec import SpeakersSpec


def _load() -> Tool:
    from pipeline.speakers.job import run
    from pipeline.speakers.summary import as_json, format_summary

    return Tool(run, format_summary, as_json)


main = tool(SpeakersSpec, _load, program="jobs/speakers.py")

if __name__ == "__main__":
    raise SystemExit(main())
