"""Embeds the voices of a speech corpus: audio shards in, a Parquet table of x-vectors out.

python jobs/embed.py --input s3://corpus/train/ --output s3://lake/voices/ --model ./xvector
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import command

main = command("embed")

if __name__ == "__main__":
    raise SystemExit(main())
