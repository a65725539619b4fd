"""Writes any annotations in one run; checkpoints that share a backbone share its pass over the audio.

python jobs/annotate.py --input s3://corpus/ --output s3://lake/table/ --transcribe ./ctc --embed ./xvector
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_job
from pipeline.spec import AnnotateSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_job`."""
    return run_job(AnnotateSpec, arguments, program="jobs/annotate.py")


if __name__ == "__main__":
    raise SystemExit(main())
