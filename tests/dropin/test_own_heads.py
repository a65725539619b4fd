"""Heads that people write themselves around the published base classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import w2vbert
from tests.dropin.models import SIZES, clips, collate, twins


def emotions(library: Any) -> type[Any]:
    """Mean pooling over the frames of each clip, as tutorials have it."""

    class ForEmotions(library.Wav2Vec2BertPreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.wav2vec2_bert = library.Wav2Vec2BertModel(config)
            self.classifier = nn.Linear(config.hidden_size, config.num_labels)
            self.post_init()

        def forward(
            self, input_features: Tensor, attention_mask: Tensor, labels: Tensor | None = None
        ) -> dict[str, Tensor]:
            frames = self.wav2vec2_bert(input_features, attention_mask=attention_mask)[0]
            mask = self._get_feature_vector_attention_mask(frames.shape[1], attention_mask)
            pooled = (frames * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
            logits = self.classifier(pooled)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    return ForEmotions


def batch() -> dict[str, Tensor]:
    return {**collate(clips(3)), "labels": torch.tensor([0, 2, 1])}


def test_an_own_head_on_a_checkpoint_of_the_encoder(tmp_path: Path) -> None:
    encoder, _ = twins(w2vbert.Wav2Vec2BertModel)
    encoder.save_pretrained(tmp_path / "encoder")
    ours = emotions(w2vbert).from_pretrained(tmp_path / "encoder", num_labels=3)
    peer = emotions(transformers).from_pretrained(tmp_path / "encoder", num_labels=3)
    assert ours.classifier.bias.tolist() == [0, 0, 0]
    peer.load_state_dict(ours.state_dict())
    for model in (ours, peer):
        model.base_model.requires_grad_(False)
    found, expected = ours(**batch()), peer(**batch())
    torch.testing.assert_close(found["loss"], expected["loss"], atol=1e-5, rtol=1e-5)
    found["loss"].backward()
    expected["loss"].backward()
    torch.testing.assert_close(ours.classifier.weight.grad, peer.classifier.weight.grad, atol=1e-5, rtol=1e-4)
    ours.save_pretrained(tmp_path / "whole")
    again = emotions(w2vbert).from_pretrained(tmp_path / "whole", complete=True)
    torch.testing.assert_close(again(**batch())["logits"], found["logits"])
    assert again.config.num_labels == 3
    bare = w2vbert.Wav2Vec2BertModel.from_pretrained(tmp_path / "whole")
    assert torch.equal(
        bare.encoder.layers[0].ffn1.output_dense.weight, encoder.encoder.layers[0].ffn1.output_dense.weight
    )


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_frames_that_heads_read(layers: int) -> None:
    fields = {"add_adapter": layers > 0, "num_adapter_layers": max(layers, 1)}
    ours, peer = twins(w2vbert.Wav2Vec2BertForCTC, **fields)
    assert isinstance(ours, w2vbert.Wav2Vec2BertPreTrainedModel)
    mask = batch()["attention_mask"]
    length = ours._get_feat_extract_output_lengths(mask.shape[1])
    found, expected = (model._get_feature_vector_attention_mask(length, mask) for model in (ours, peer))
    assert torch.equal(found, expected)
    assert not found.all()
    without = [model._get_feature_vector_attention_mask(mask.shape[1], mask, False) for model in (ours, peer)]
    assert torch.equal(*without)


def test_a_decoder_behind_the_encoder() -> None:
    """`SpeechEncoderDecoderModel` asks the encoder which of its frames count."""
    ours, peer = twins(w2vbert.Wav2Vec2BertModel)
    words = transformers.BertConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        is_decoder=True,
        add_cross_attention=True,
    )
    torch.manual_seed(0)
    decoder = transformers.BertLMHeadModel(words).eval()
    told = {name: value for name, value in batch().items() if name != "labels"}
    losses = []
    for encoder in (ours, peer):
        model = transformers.SpeechEncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
        model.config.decoder_start_token_id, model.config.pad_token_id = 1, 0
        losses.append(
            model(
                inputs=told["input_features"],
                attention_mask=told["attention_mask"],
                labels=torch.tensor([[3, 4], [5, 6], [7, 8]]),
            ).loss
        )
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    assert SIZES["hidden_size"] == words.hidden_size
