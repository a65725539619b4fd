"""Transcribes a speech corpus: audio shards in, a Parquet table of transcripts out.

python jobs/transcribe.py --input s3://corpus/train/ --output s3://lake/transcripts/ --model ./ctc
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_job
from pipeline.spec import TranscribeSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_job`."""
    return run_job(TranscribeSpec, arguments, program="jobs/transcribe.py")


if __name__ == "__main__":
    raise SystemExit(main())
