"""Files of a checkpoint: their formats, and damage to them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.w2vbert.heads.test_heads import build, config
from tests.w2vbert.pretrained.checkpoints import assert_same, weights
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.pretrained.hub import CheckpointNotFoundError
from w2vbert.pretrained.weights import CheckpointError

# Formats


@pytest.mark.parametrize("max_shard_size", ["50GB", "12KB", 9000])
def test_round_trip(tmp_path: Path, max_shard_size: int | str) -> None:
    model = build(Wav2Vec2BertForCTC)
    model.save_pretrained(tmp_path / "new" / "folder", max_shard_size=max_shard_size)
    again = Wav2Vec2BertForCTC.from_pretrained(tmp_path / "new" / "folder")
    assert_same(weights(model), weights(again))
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    for path in (tmp_path / "new" / "folder").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
    saved = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert saved["architectures"] == ["Wav2Vec2BertForCTC"]
    assert saved["dtype"] == "float32"


def test_shards(tmp_path: Path) -> None:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path, max_shard_size="10KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    count = len(files)
    assert count > 2
    assert files == [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    sizes = [sum(t.nbytes for t in load_file(tmp_path / name).values()) for name in files]
    assert max(sizes) <= 10_000
    assert index["metadata"]["total_size"] == sum(sizes)
    # A later save leaves nothing of an earlier one that could be mistaken for its own.
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path, max_shard_size="10KB")
    assert not (tmp_path / "model.safetensors").exists()


def test_saving_over_the_files_that_a_model_is_mapped_from(tmp_path: Path) -> None:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(tmp_path)
    changed = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert torch.equal(changed.lm_head.weight, before["lm_head.weight"] + 1.0)
    assert torch.equal(
        weights(model)["wav2vec2_bert.feature_projection.projection.weight"],
        before["wav2vec2_bert.feature_projection.projection.weight"],
    )


def test_weights_that_share_memory_can_be_saved(tmp_path: Path) -> None:
    model = build(Wav2Vec2BertForCTC)
    layers = model.wav2vec2_bert.encoder.layers
    layers[1].ffn1.output_dense.weight = layers[0].ffn1.output_dense.weight
    model.save_pretrained(tmp_path)
    assert_same(weights(model), weights(Wav2Vec2BertForCTC.from_pretrained(tmp_path)))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights(tmp_path: Path, sharded: bool, zipped: bool) -> None:
    model = build(Wav2Vec2BertForCTC)
    model.config.save_pretrained(tmp_path)
    items = list(weights(model).items())
    shards = [items[::2], items[1::2]] if sharded else [items]
    names = ["pytorch_model-1.bin", "pytorch_model-2.bin"] if sharded else ["pytorch_model.bin"]
    for name, shard in zip(names, shards, strict=True):
        torch.save(dict(shard), tmp_path / name, _use_new_zipfile_serialization=zipped)
    if sharded:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key, _ in shard}
        index = {"metadata": {}, "weight_map": weight_map}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_same(weights(model), weights(Wav2Vec2BertForCTC.from_pretrained(tmp_path)))
    with pytest.raises(CheckpointNotFoundError, match=r"no weights \(model\.safetensors"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path, use_safetensors=True)


class Harm:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


def test_pickles_that_would_run_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctc: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config().save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Harm()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*safetensors"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(ValueError, match="weights_only"):
        Wav2Vec2BertForCTC.from_pretrained(ctc, weights_only=False)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    model = build(Wav2Vec2BertForCTC)
    model.save_pretrained(tmp_path)
    other = {name: tensor + 1 for name, tensor in weights(model).items()}
    torch.save(other, tmp_path / "pytorch_model.bin")
    assert_same(weights(model), weights(Wav2Vec2BertForCTC.from_pretrained(tmp_path)))
    assert_same(other, weights(Wav2Vec2BertForCTC.from_pretrained(tmp_path, use_safetensors=False)))


# Damage


def test_damaged_files(tmp_path: Path) -> None:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointNotFoundError, match="no weights"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="dictionary of tensors"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)


def test_missing_and_incomplete_shards(tmp_path: Path) -> None:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path, max_shard_size="10KB")
    shard = sorted(tmp_path.glob("model-00002-*"))[0]
    content = load_file(shard)
    lost = sorted(content)[0]
    save_file({name: tensor for name, tensor in content.items() if name != lost}, shard)
    with pytest.raises(CheckpointError, match=f"{shard.name} should hold {lost}"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"names the shard {shard.name}, which is missing"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="hub"):
        Wav2Vec2BertForCTC.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)


def test_hub_cache(tmp_path: Path) -> None:
    """A checkpoint in the hub's cache loads without a network, by its id."""
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "abc"
    model = build(Wav2Vec2BertForCTC)
    model.save_pretrained(snapshot, max_shard_size="10KB")
    refs = tmp_path / "models--owner--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    again = Wav2Vec2BertForCTC.from_pretrained("owner/model", cache_dir=tmp_path, local_files_only=True)
    assert_same(weights(model), weights(again))
    assert again.name_or_path == "owner/model"
