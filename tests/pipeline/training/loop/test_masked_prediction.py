"""Masked prediction learns more than which code is the most frequent, and the peer loads what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pipeline.training.group import Group
from pipeline.training.loop.worker import ModelParts, train
from pipeline.training.model.masked import MASKED_PREDICTION, SpanMasks
from pipeline.training.publish import publish
from pipeline.training.state.checkpoints import Checkpoints
from tests.pipeline.training.loop.made_up import SMALL, row_of, training_of
from tests.pipeline.training.tables import STORAGE
from tests.spoken import utterances

STEPS = 500
CODEBOOKS = {"codebook_size": 64, "codebook_dim": 16, "num_codebooks": 1, "seed": 0}


@pytest.mark.slow
def test_more_than_the_most_frequent_code(tmp_path: Path) -> None:
    rows = [row_of(one) for one in utterances(120)]
    model = ModelParts(SMALL, {}, {}, seed=0, codebooks=CODEBOOKS, masks=SpanMasks(0.5, 5))
    training = training_of(tmp_path, rows, rate=2e-3, model=model, max_steps=STEPS)
    train(training, Group(), lambda kind, news: None)
    lines = map(json.loads, Path(training.output, "events.jsonl").read_text("utf-8").splitlines())
    steps = [event for event in lines if event["kind"] == "step"]
    assert len(steps) == STEPS
    first, last = steps[:20], steps[-20:]
    accuracy, trivial = mean(last, "accuracy"), mean(last, "most_frequent")
    assert accuracy > trivial + 0.1, (accuracy, trivial)
    assert mean(first, "accuracy") < trivial

    learner, _ = training.model.build()
    newest = Checkpoints(training.output, STORAGE).weights(STEPS)
    publish(learner, newest, training.settings, training.output, STORAGE)
    peer = transformers.Wav2Vec2BertModel.from_pretrained(
        f"{training.output}/{MASKED_PREDICTION}", output_loading_info=True
    )
    loaded, info = peer
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    features = torch.from_numpy(
        np.frombuffer(rows[0]["features"], np.float16).reshape(1, -1, 160).astype(np.float32)
    )
    ours = learner.results[MASKED_PREDICTION].eval()
    with torch.inference_mode():
        torch.testing.assert_close(
            ours(features).last_hidden_state, loaded.eval()(features).last_hidden_state, rtol=1e-4, atol=1e-4
        )


def mean(steps: list[dict[str, float]], name: str) -> float:
    return float(np.mean([step[f"{MASKED_PREDICTION}/{name}"] for step in steps]))
