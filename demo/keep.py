"""Keep the checkpoints of runs as the demo's, at half the size: weights in float16, to be loaded as float32.

python demo/keep.py RUN ...        # of a task that several runs have, the last one's
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

PLACES = {"transcribe": "checkpoint", "classify": "classify", "diarize": "diarize", "embed": "embed"}
WEIGHTS = "model.safetensors"


def keep(run: Path, demo: Path) -> None:
    """The configuration goes on saying float32: this is what the weights become when they are loaded."""
    for task, place in PLACES.items():
        if (run / task).is_dir():
            shutil.rmtree(demo / place, ignore_errors=True)
            shutil.copytree(run / task, demo / place)
            weights = {name: tensor.half() for name, tensor in load_file(run / task / WEIGHTS).items()}
            save_file(weights, demo / place / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    for run in sys.argv[1:]:
        keep(Path(run), Path(__file__).parent)
