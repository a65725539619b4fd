"""Checkpoints in the published layout: one of each task, with the same encoder, and what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.node_files import CheckpointFiles, digest_of
from pipeline.storage import Storage, join
from pipeline.training.model.learner import Learner
from pipeline.training.state.checkpoints import Weights
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_CONFIG = "config.json"  # what makes a directory a checkpoint


def settings_of(
    learner: Learner, extractor: SeamlessM4TFeatureExtractor, tokenizer: Wav2Vec2CTCTokenizer | None
) -> dict[str, CheckpointFiles]:
    """By task, what its checkpoint holds beside the weights."""
    found = {}
    for task, model in learner.results.items():
        with tempfile.TemporaryDirectory() as folder:
            model.config.save_pretrained(folder)
            extractor.save_pretrained(folder)
            if task == "transcribe" and tokenizer is not None:
                tokenizer.save_pretrained(folder)
            paths = sorted(Path(folder).iterdir())
            files = {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in paths}
        found[task] = CheckpointFiles(task, digest_of(files), files)
    return found


def publish(
    learner: Learner,
    weights: Weights,
    settings: Mapping[str, CheckpointFiles],
    output: str,
    storage: Storage,
) -> None:
    """Writes the checkpoint of each task to a folder of its name, its `config.json` last."""
    learner.load_weights(weights)
    for task, model in learner.results.items():
        with tempfile.TemporaryDirectory() as local:
            model.save_pretrained(local)
            folder = join(output, task)
            storage.remove(join(folder, _CONFIG))
            for name, data in settings[task].files.items():
                if name != _CONFIG:
                    storage.write_bytes(join(folder, name), data.tobytes())
            for path in sorted(Path(local).iterdir(), key=lambda path: path.name == _CONFIG):
                storage.write_bytes(join(folder, path.name), path.read_bytes())
