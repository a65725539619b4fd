"""Finds the speakers of a corpus by the x-vectors of its table, and scores verification trials.

python jobs/speakers.py --table s3://lake/voices/ --output s3://lake/speakers/ --trials trials.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from pipeline.cli import fail, read_spec
from pipeline.errors import JobError
from pipeline.speakers import SpeakersSpec, for_the_eye, run

PROGRAM = "jobs/speakers.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad configuration or input that does not serve."""
    try:
        spec = read_spec(SpeakersSpec, sys.argv[1:] if arguments is None else arguments, program=PROGRAM)
        summary = run(spec)
    except JobError as problem:
        return fail(PROGRAM, problem)
    print(for_the_eye(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
