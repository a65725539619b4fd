"""The stages from Python, without Ray: a folder of audio to rows, in one process.

python examples/stages.py [AUDIO]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from pipeline.annotate.checkpoints import configs_of, extractor_of, read_backbones
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.annotate.stage import Annotator
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import discover
from pipeline.corpus.parts import read_parts, split
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.schema import output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS, columns_of

DEMO = Path(__file__).resolve().parent.parent / "demo"


def main(audio: str = str(DEMO / "corpus")) -> None:
    """Prints the transcript of each clip, or why there is none."""
    storage, passthrough = Storage(StorageOptions()), Passthrough(pa.schema([]))
    tasks = {"transcribe": TASKS["transcribe"]}
    options = {"transcribe": TASKS["transcribe"].options()}
    backbones = read_backbones(
        {"transcribe": str(DEMO / "checkpoint")}, {"transcribe": "--model"}, tasks, storage
    )
    extractor = extractor_of(backbones)

    shards = discover([audio], storage, outputs=[])
    parts = [part for shard in shards for part in split(shard, storage)]
    windows = WindowPlan(frames=round(40 / extractor.frame_s), overlap=round(4 / extractor.frame_s))
    featurizer = Featurizer(extractor, storage, passthrough.schema, windows, FeatureOptions())
    annotator = Annotator(
        [backbone.checkpoints for backbone in backbones],
        AnnotatorSettings(tasks, options, extractor.frame_s),
        output_schema(passthrough.schema, columns_of(tasks, options, configs_of(backbones))),
    )
    for clips in read_parts(parts, storage, passthrough):
        for features in featurizer(clips):
            for row in annotator(features).to_pylist():
                print(f"{row['clip_id']}: {row['text'] if row['error'] is None else row['error']['message']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
