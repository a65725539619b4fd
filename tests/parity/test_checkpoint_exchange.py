"""Checkpoints go both ways: what we save the peer loads, and the other way round, with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tests.parity.configs import batch, pair
from tests.parity.test_heads import TASKS, main_output, task_config
from w2vbert.heads import Wav2Vec2BertForCTC, Wav2Vec2BertForSequenceClassification
from w2vbert.heads.task import TaskModel
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.digest import backbone_digest

PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def predictions(model: Any, features: Tensor) -> Tensor:
    with torch.no_grad():
        return main_output(model(features))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("max_shard_size", ["50GB", "4KB"])
def test_we_save_and_the_peer_loads(task: type[TaskModel], max_shard_size: str, tmp_path: Path) -> None:
    config = task_config(
        task, 21, apply_spec_augment=True, id2label={0: "yes", 1: "no", 2: "?"}, num_labels=3
    )
    ours, _ = pair(task, config)
    ours.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    peer, info = getattr(transformers, task.__name__).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[problem] for problem in PROBLEMS)
    assert peer.config.id2label == {0: "yes", 1: "no", 2: "?"}
    assert peer.config.architectures == [task.__name__]
    features, _ = batch(config, [40, 40])
    torch.testing.assert_close(predictions(ours, features), predictions(peer, features), atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("max_shard_size", ["50GB", "4KB"])
def test_the_peer_saves_and_we_load(task: type[TaskModel], max_shard_size: str, tmp_path: Path) -> None:
    config = task_config(task, 22)
    _, peer = pair(task, config)
    peer.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "4KB")
    ours, info = task.from_pretrained(tmp_path, output_loading_info=True)  # type: ignore[misc]
    assert not any(info[problem] for problem in PROBLEMS)
    features, _ = batch(config, [40, 40])
    torch.testing.assert_close(predictions(ours, features), predictions(peer, features), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_encoder_and_task_checkpoints_of_the_peer(task: type[TaskModel], tmp_path: Path) -> None:
    """A head on the peer's bare encoder, and the encoder of the peer's task model."""
    config = task_config(task, 23)
    _, peer = pair(task, config)
    peer.wav2vec2_bert.save_pretrained(tmp_path / "bare")
    peer.save_pretrained(tmp_path / "task")
    headed, info = task.from_pretrained(tmp_path / "bare", output_loading_info=True)  # type: ignore[misc]
    assert info["missing_keys"] == {n for n in peer.state_dict() if not n.startswith("wav2vec2_bert.")}
    assert not info["unexpected_keys"]
    bare = Wav2Vec2BertModel.from_pretrained(tmp_path / "task")
    assert backbone_digest(bare) == backbone_digest(headed)
    features, _ = batch(config, [40])
    with torch.no_grad():
        mine, theirs = (model(features).last_hidden_state for model in (bare, peer.wav2vec2_bert))
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_bfloat16_checkpoints(tmp_path: Path) -> None:
    config = task_config(Wav2Vec2BertForCTC, 24)
    ours, _ = pair(Wav2Vec2BertForCTC, config)
    ours.bfloat16().save_pretrained(tmp_path / "ours")
    peer = transformers.Wav2Vec2BertForCTC.from_pretrained(tmp_path / "ours")
    assert peer.dtype == torch.bfloat16
    peer.save_pretrained(tmp_path / "theirs")
    again = Wav2Vec2BertForCTC.from_pretrained(tmp_path / "theirs")
    assert again.dtype == torch.bfloat16
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_unknown_fields_survive_both_ways(tmp_path: Path) -> None:
    config = task_config(Wav2Vec2BertForSequenceClassification, 25, finetuned_from="w2v-bert-2.0")
    ours, _ = pair(Wav2Vec2BertForSequenceClassification, config)
    ours.save_pretrained(tmp_path / "ours")
    peer = transformers.Wav2Vec2BertForSequenceClassification.from_pretrained(tmp_path / "ours")
    peer.save_pretrained(tmp_path / "theirs")
    again = Wav2Vec2BertForSequenceClassification.from_pretrained(tmp_path / "theirs")
    assert again.config.finetuned_from == "w2v-bert-2.0"


# A checkpoint trained with the peer, on real speech.


def expected(shared_models: Path) -> list[dict[str, Any]]:
    lines = (shared_models / "digits-ctc" / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:60:5]]


def speech_features(path: Path) -> tuple[Tensor, Tensor]:
    """Features of a recording and their mask, as the expected numbers were made."""
    import soundfile
    import torchaudio

    from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

    samples, rate = soundfile.read(path, dtype="float32")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16000)
    inputs = SeamlessM4TFeatureExtractor()(np.asarray(waveform), sampling_rate=16000, return_tensors="pt")
    return inputs["input_features"], inputs["attention_mask"]


@torch.no_grad()
def test_trained_checkpoint_on_real_speech(shared_models: Path, shared_data: Path) -> None:
    model = Wav2Vec2BertForCTC.from_pretrained(shared_models / "digits-ctc")
    whole = 0
    for clip in expected(shared_models):
        features, mask = speech_features(shared_data / clip["path"])
        logits = model(features, mask).logits[0]
        assert len(logits) == clip["frames"]
        first = torch.tensor(clip["logits_first_frame"])
        torch.testing.assert_close(logits[0], first, atol=2e-4, rtol=1e-4)
        # Of an odd number of fbank frames the last stacked one is padding, with noise for logits there.
        if mask.all():
            assert logits.mean().item() == pytest.approx(clip["logits_mean"], abs=1e-4)
            assert logits.std().item() == pytest.approx(clip["logits_std"], abs=1e-4)
            whole += 1
    assert whole > 3
