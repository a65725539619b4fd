"""Keep the checkpoints of a run as the demo's, at half the size: weights in float16, to be loaded as float32.

python demo/keep.py RUN [FOLDER]           # FOLDER defaults to demo/
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
        shutil.rmtree(demo / place, ignore_errors=True)
        shutil.copytree(run / task, demo / place)
        weights = {name: tensor.half() for name, tensor in load_file(run / task / WEIGHTS).items()}
        save_file(weights, demo / place / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
