"""Labels the clips of a speech corpus: audio shards in, a Parquet table of labels with scores out.

python jobs/classify.py --input s3://corpus/train/ --output s3://lake/labels/ --model ./classifier
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import command

main = command("classify")

if __name__ == "__main__":
    raise SystemExit(main())
