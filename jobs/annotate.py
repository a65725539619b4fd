"""Writes any annotations in one run; checkpoints that share a backbone share its pass over the audio.

python jobs/annotate.py --input s3://corpus/ --output s3://lake/table/ --transcribe ./ctc --embed ./xvector
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import command

main = command("annotate")

if __name__ == "__main__":
    raise SystemExit(main())
