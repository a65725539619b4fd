"""The adapter: lengths, short clips, and no skipped layers."""

from __future__ import annotations

import pytest
import torch
import transformers

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.adapter import ClipTooShortError, adapter_lengths
from w2vbert.model import Wav2Vec2BertModel

SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "feature_projection_input_dim": 8,
    "add_adapter": True,
}


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_lengths_are_those_of_torch(kernel: int, stride: int) -> None:
    config = Wav2Vec2BertConfig(adapter_kernel_size=kernel, adapter_stride=stride, **SIZES)
    convolution = torch.nn.Conv1d(1, 1, kernel, stride=stride, padding=stride // 2)
    lengths = range(max(1, kernel), 30)
    expected = tuple(convolution(torch.zeros(1, 1, length)).shape[-1] for length in lengths)
    assert adapter_lengths(config, lengths) == expected


def test_too_short_a_clip_is_named() -> None:
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(adapter_kernel_size=7, **SIZES)).eval()
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    with pytest.raises(ClipTooShortError, match=r"clip 1 has 4 frames .* needs 5"):
        model(torch.zeros(2, 9, 8), mask)
    with pytest.raises(ClipTooShortError, match="clip 1"):
        model.output_lengths([9, 4])


def test_no_layer_is_skipped_in_training() -> None:
    """The published layerdrop skips strided layers too, and the output grows."""
    fields = {**SIZES, "num_adapter_layers": 2, "layerdrop": 1.0, "apply_spec_augment": False}
    features = torch.zeros(1, 32, 8)
    peer = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**fields)).train()
    ours = Wav2Vec2BertModel(Wav2Vec2BertConfig(**fields)).train()
    assert peer(features).last_hidden_state.shape[1] == 32
    assert ours(features).last_hidden_state.shape[1] == 8
    assert ours.output_lengths([32]) == (8,)
