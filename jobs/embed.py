"""Embeds the voices of a speech corpus: audio shards in, a Parquet table of x-vectors out.

python jobs/embed.py --input s3://corpus/train/ --output s3://lake/voices/ --model ./xvector
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import run_job
from pipeline.spec import EmbedSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see `jobs.cli.run_job`."""
    return run_job(EmbedSpec, arguments, program="jobs/embed.py")


if __name__ == "__main__":
    raise SystemExit(main())
