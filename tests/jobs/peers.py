"""The published model classes with random weights, as checkpoints of one backbone, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import SeamlessM4TFeatureExtractor

from tests.conftest import ROOT

SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "classifier_proj_size": 24,
    "tdnn_dim": [32, 32, 40],
    "tdnn_kernel": [5, 3, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 16,
    "vocab_size": 20,
    "pad_token_id": 0,
}
CLASSES = {
    "transcribe": (transformers.Wav2Vec2BertForCTC, {}),
    "classify": (transformers.Wav2Vec2BertForSequenceClassification, {"num_labels": 7}),
    "diarize": (transformers.Wav2Vec2BertForAudioFrameClassification, {"num_labels": 3}),
    "embed": (transformers.Wav2Vec2BertForXVector, {"num_labels": 4}),
}


def build(task: str, seed: int = 0, **fields: Any) -> Any:
    """A peer model in evaluation mode; its head is large enough for differences to show. Models of one seed
    have the same encoder."""
    kind, own = CLASSES[task]
    torch.manual_seed(seed)
    model = kind(transformers.Wav2Vec2BertConfig(**{**SMALL, **own, **fields})).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in (model.wav2vec2_bert, *(m for n, m in model.named_children() if n != "wav2vec2_bert")):
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
        if getattr(model, "layer_weights", None) is not None:
            model.layer_weights.normal_()
    return model


def save(model: Any, folder: Path) -> Path:
    """As users save it: the model, the feature extractor, and for CTC the demo's vocabulary."""
    model.save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    if isinstance(model, transformers.Wav2Vec2BertForCTC):
        for name in ("vocab.json", "tokenizer_config.json"):
            (folder / name).write_bytes((ROOT / "demo" / "checkpoint" / name).read_bytes())
    return folder


@torch.inference_mode()
def answer(model: Any, samples: np.ndarray) -> Any:
    """The peer's output for one clip alone: (n,) float32 at 16 kHz."""
    inputs = SeamlessM4TFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
    return model(**inputs)
