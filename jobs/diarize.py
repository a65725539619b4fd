"""Finds who speaks when: audio shards in, a Parquet table of speaker segments and frame activity out.

python jobs/diarize.py --input s3://corpus/train/ --output s3://lake/speakers/ --model ./diarizer
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import command

main = command("diarize")

if __name__ == "__main__":
    raise SystemExit(main())
