"""Transcribes a speech corpus: audio shards in, a Parquet table of transcripts out.

python jobs/transcribe.py --input s3://corpus/train/ --output s3://lake/transcripts/ --model ./checkpoint
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from pipeline.cli import fail, read_spec
from pipeline.errors import JobError
from pipeline.spec import JobSpec

PROGRAM = "jobs/transcribe.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 complete, 2 bad configuration, 3 more error rows than --max-error-rate."""
    try:
        spec = read_spec(JobSpec, sys.argv[1:] if arguments is None else arguments, program=PROGRAM)
        # After the flags are read: --help and mistakes should not wait for torch.
        from pipeline.run import run
        from pipeline.summary import for_the_eye

        summary = run(spec)
    except JobError as problem:
        return fail(PROGRAM, problem)
    print(for_the_eye(summary))
    if summary["error_rate"] > spec.max_error_rate:
        print(
            f"{PROGRAM}: {summary['error_rate']:.1%} of the clips are error rows, "
            f"more than --max-error-rate {spec.max_error_rate:g}",
            file=sys.stderr,
        )
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
