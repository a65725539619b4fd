"""The configuration against the published one: same fields, same defaults, files that both sides read."""

from __future__ import annotations

from pathlib import Path

import transformers

from tests.parity.configs import peer_config, random_config
from w2vbert.config import Wav2Vec2BertConfig

# Fields of every model of the peer's library that mean nothing to this family.
NOT_OURS = {"transformers_version", "chunk_size_feed_forward", "is_encoder_decoder", "_name_or_path"}


def test_published_fields_and_defaults() -> None:
    published = transformers.Wav2Vec2BertConfig().to_dict()
    ours = Wav2Vec2BertConfig().to_dict()
    assert published.keys() - ours.keys() == NOT_OURS
    assert {name: ours[name] for name in published.keys() - NOT_OURS} == {
        name: value for name, value in published.items() if name not in NOT_OURS
    }


def test_files_travel_both_ways(tmp_path: Path) -> None:
    for seed in range(5):
        config = random_config(seed, num_labels=seed + 2)
        config.save_pretrained(tmp_path / "ours")
        peer = transformers.Wav2Vec2BertConfig.from_pretrained(tmp_path / "ours")
        for name, value in config.to_dict().items():
            assert getattr(peer, name) == value, name
        peer.save_pretrained(tmp_path / "peer")
        again = Wav2Vec2BertConfig.from_pretrained(tmp_path / "peer")
        assert {name: getattr(again, name) for name in config.to_dict()} == config.to_dict()
        assert again.transformers_version == transformers.__version__


def test_ratio_of_audio_to_logits() -> None:
    for seed in range(5):
        config = random_config(seed, add_adapter=True)
        assert config.inputs_to_logits_ratio == peer_config(config).inputs_to_logits_ratio
