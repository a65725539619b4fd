"""Fine-tunes Wav2Vec2-BERT: labelled audio shards and a checkpoint in, a better one of each task out.

python jobs/finetune.py --task transcribe --train s3://corpus/train/ --model ./base --output s3://models/ours/
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli.training import main

if __name__ == "__main__":
    raise SystemExit(main())
