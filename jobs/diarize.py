"""Finds who speaks when: audio shards in, a Parquet table of speaker segments and frame activity out.

python jobs/diarize.py --input s3://corpus/train/ --output s3://lake/speakers/ --model ./diarizer
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_job
from pipeline.spec import DiarizeSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_job`."""
    return run_job(DiarizeSpec, arguments, program="jobs/diarize.py")


if __name__ == "__main__":
    raise SystemExit(main())
