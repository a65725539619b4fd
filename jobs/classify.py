"""Labels the clips of a speech corpus: audio shards in, a Parquet table of labels with scores out.

python jobs/classify.py --input s3://corpus/train/ --output s3://lake/labels/ --model ./classifier
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_job
from pipeline.spec import ClassifySpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_job`."""
    return run_job(ClassifySpec, arguments, program="jobs/classify.py")


if __name__ == "__main__":
    raise SystemExit(main())
