"""Masked prediction: exactly the masked frames count, and what is published is an encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from pipeline.errors import JobError
from pipeline.training.model.build import build, build_masked
from pipeline.training.model.losses import TaskLoss
from pipeline.training.model.masked import MASKED_PREDICTION, MaskedPrediction, SpanMasks
from tests.pipeline.training.model.tiny import CONFIG, HEADS, LENGTHS, STILL, batch
from w2vbert.features.quantizer import RandomProjectionQuantizer
from w2vbert.model import Wav2Vec2BertModel

CODES = {"codebook_size": 20, "codebook_dim": 4, "num_codebooks": 2, "seed": 3}


def learner(masks: SpanMasks | None = None, **fields: Any) -> MaskedPrediction:
    torch.manual_seed(0)
    config = {**CONFIG, **STILL, **fields}
    made = build_masked(config, {}, masks or SpanMasks(0.5, 4), **CODES).learner
    assert isinstance(made, MaskedPrediction)
    return made


def loss_of(model: MaskedPrediction, **options: Any) -> TaskLoss:
    return model(batch(given={}), **options)[MASKED_PREDICTION]


def some_frames() -> Tensor:
    masks = torch.zeros(3, max(LENGTHS), dtype=torch.bool)
    masks[0, 3:9] = True
    masks[2, [0, 20, 25]] = True
    return masks


def test_the_loss_by_hand() -> None:
    """The encoder hears masked frames, the codes are of what was there, and no other frame counts."""
    model, masks = learner(), some_frames()
    loss = loss_of(model, mask_time_indices=masks)
    features = batch(given={}).features
    codes = RandomProjectionQuantizer(10, 20, 4, 2, seed=3)
    with torch.no_grad():
        states = model.encoder.encode(features, mask_time_indices=masks).last_hidden_state
        clean = model.encoder.encode(features).last_hidden_state
    assert not torch.allclose(states.frames, clean.frames)
    weight, bias = model.predictor.weight, model.predictor.bias
    per_clip: list[list[float]] = []
    correct = 0
    for clip, heard, chosen in zip(states.split(), features.split(), masks, strict=True):
        per_clip.append([])
        for frame in chosen.nonzero().flatten().tolist():
            logits = (weight @ clip[frame] + bias).split(20)
            targets = codes(heard[frame : frame + 1])[0]
            per_clip[-1].append(
                sum(F.cross_entropy(x, y).item() for x, y in zip(logits, targets, strict=True)) / 2
            )
            correct += sum(int(x.argmax() == y) for x, y in zip(logits, targets, strict=True))
    assert loss.count == 9
    assert loss.total.item() == pytest.approx(sum(map(sum, per_clip)), rel=1e-5)
    assert loss.clips[0].item() == pytest.approx(sum(per_clip[0]) / 6, rel=1e-5)
    assert loss.clips[2].item() == pytest.approx(sum(per_clip[2]) / 3, rel=1e-5)
    assert loss.clips[1].isnan()
    assert loss.facts["correct"] == correct / 2


def test_facts_of_codes() -> None:
    """All but one frame are the same: one code has most of them, in each codebook."""
    model = learner()
    made = batch((6, 4), {})
    made.features.frames[:9] = made.features.frames[0]
    loss = model(made, mask_time_indices=torch.ones(2, 6, dtype=torch.bool))[MASKED_PREDICTION]
    codes = model.quantizer(made.features.frames)
    assert (codes[9] != codes[0]).all(), "another seed is needed"
    assert loss.facts["most_frequent"] == 9
    assert loss.facts["codes_used"] / loss.count == 2


def test_a_clip_without_features_is_not_guessed() -> None:
    model, whole = learner(), batch(given={})
    broken = replace(whole, unusable=["clip-1"])
    loss, expected = (model(one)[MASKED_PREDICTION] for one in (broken, whole))
    assert loss.clips[1].isnan()
    assert not expected.clips[1].isnan()
    assert model.counts(broken) == {MASKED_PREDICTION: loss.count}
    assert 0 < loss.count < expected.count


def test_masks_are_drawn_from_the_batch_in_evaluation_too() -> None:
    model = learner()
    first = loss_of(model)
    assert 30 < first.count < 50, "half of 78 frames, less where spans overlap"
    assert torch.equal(loss_of(model).clips, first.clips)
    assert torch.equal(loss_of(model.eval()).clips, first.clips)
    assert model(batch(given={}, seed=8))[MASKED_PREDICTION].count != first.count


@pytest.mark.parametrize("skipped", [set(), {0, 2}])
@pytest.mark.parametrize("masks", [SpanMasks(0.5, 4), SpanMasks(0.5, 100)])
def test_every_parameter_has_a_gradient(skipped: set[int], masks: SpanMasks) -> None:
    """A span of 100 frames fits in no clip: nothing counts."""
    model = learner(masks)
    loss = loss_of(model, skipped_layers=skipped)
    assert (loss.count == 0) == (masks.length == 100)
    loss.total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_codes_of_a_seed_are_learned() -> None:
    """Accuracy beats the most frequent code on features that repeat every three frames."""
    model = learner(SpanMasks(0.3, 2))
    made = batch((60, 60), {})
    made.features.frames.copy_(made.features.frames[:3].repeat(40, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model(made)[MASKED_PREDICTION]
        (loss.total / loss.count).backward()
        optimiser.step()
    assert loss.facts["most_frequent"] / loss.count < 0.6
    assert loss.facts["correct"] / loss.count > 0.95


def test_an_encoder_is_published(tmp_path: Path) -> None:
    """As transformers and fine-tuning read it: with the vector for masks, fine-tuning's masks, no head."""
    model = learner(mask_time_prob=0.0)
    model.results[MASKED_PREDICTION].save_pretrained(tmp_path)
    peer, info = transformers.Wav2Vec2BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert (peer.config.mask_time_prob, peer.config.mask_time_length) == (0.05, 3)
    features = batch(given={}).features.pad()[:1]
    with torch.no_grad():
        mine = Wav2Vec2BertModel.from_pretrained(tmp_path)(features).last_hidden_state
        torch.testing.assert_close(mine, peer.eval()(features).last_hidden_state, rtol=1e-4, atol=1e-4)
    tuned = build(tmp_path, {"transcribe": HEADS["transcribe"]}, {})
    assert tuned.new == {"tasks.transcribe.lm_head.weight", "tasks.transcribe.lm_head.bias"}
    assert torch.equal(tuned.learner.encoder.masked_spec_embed, model.encoder.masked_spec_embed)


def test_from_a_checkpoint_without_a_vector_for_masks(tmp_path: Path) -> None:
    learned = build({**CONFIG, **STILL}, {"transcribe": HEADS["transcribe"]}, {}).learner
    learned.results["transcribe"].save_pretrained(tmp_path)
    built = build_masked(tmp_path, {}, SpanMasks(), **CODES)
    assert built.new == {"encoder.masked_spec_embed", "predictor.weight", "predictor.bias"}
    name = "encoder.layers.0.ffn1.output_dense.weight"
    assert torch.equal(built.learner.encoder.state_dict()[name], learned.encoder.state_dict()[name])


def test_an_adapter_is_refused() -> None:
    with pytest.raises(JobError, match="give --set add_adapter=false"):
        build_masked({**CONFIG, "add_adapter": True}, {}, SpanMasks(), **CODES)
