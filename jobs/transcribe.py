"""Transcribes a speech corpus: audio shards in, a Parquet table of transcripts out.

python jobs/transcribe.py --input s3://corpus/train/ --output s3://lake/transcripts/ --model ./ctc
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import command

main = command("transcribe")

if __name__ == "__main__":
    raise SystemExit(main())
