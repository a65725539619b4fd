"""A job from Python: transcribes the demo corpus, and asks the table a question.

python examples/job.py OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from pipeline.job import run
from pipeline.reports.summary import format_summary
from pipeline.spec import TranscribeSpec

DEMO = Path(__file__).resolve().parent.parent / "demo"


def main(output: str) -> None:
    """Prints the summary and the least certain transcripts. Again, it finds nothing new."""
    spec = TranscribeSpec(input=[str(DEMO / "corpus")], output=output, model=str(DEMO / "checkpoint"))
    summary = run(spec)
    print(format_summary(summary))

    print(
        duckdb.sql(f"""
            SELECT clip_id, text, ref_text, text_confidence
            FROM '{output}/*.parquet'
            WHERE error IS NULL
            ORDER BY text_confidence
            LIMIT 5
        """)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
