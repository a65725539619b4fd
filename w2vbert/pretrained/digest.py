"""Digests of weights, and of what an encoder computes: they show which checkpoints share a backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.positions import POSITION_SCHEMES
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel

# The fields that change no hidden state of an encoder in evaluation mode. A field that is not listed counts:
# one forgotten here makes encoders differ that are the same, which costs time, never a result.
_WITHOUT_EFFECT = {
    *("vocab_size", "ctc_loss_reduction", "ctc_zero_infinity", "use_weighted_layer_sum"),
    *("classifier_proj_size", "tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim"),
    *("id2label", "label2id", "problem_type", "pad_token_id", "bos_token_id", "eos_token_id"),
    *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"),
    *("conformer_conv_dropout", "layerdrop", "initializer_range", "apply_spec_augment"),
    *("mask_time_prob", "mask_time_length", "mask_time_min_masks"),
    *("mask_feature_prob", "mask_feature_length", "mask_feature_min_masks"),
    *("output_hidden_states", "output_attentions", "return_dict", "architectures"),
    "dtype",  # of the weights, which have theirs
    "max_source_positions",  # limits nothing
}


def weights_digest(weights: Mapping[str, Tensor], salt: str = "") -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of tensors, in the order of their names.

    Args:
        weights: tensors by name, on any device.
        salt: text that belongs to the identity too.

    Returns:
        64 hexadecimal digits, the same on every machine of one byte order.
    """
    sha256 = hashlib.sha256(salt.encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        sha256.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def backbone_digest(model: Wav2Vec2BertPreTrainedModel) -> str:
    """SHA-256 (hexadecimal) of an encoder: models with equal digests compute equal hidden states.

    The same for a bare encoder and for any task model around it. It covers the weights, but for those
    that only training reads (`training_only` of the class), and the fields of the configuration that may
    change the computation. Keys of a `config.json` that are no fields do not count, for nothing reads them;
    those that a position scheme reads (`PositionScheme.extra_fields`) do.
    """
    weights = {
        name: tensor
        for name, tensor in model.base_model.state_dict().items()
        if model.training_only.isdisjoint(name.split("."))
    }
    return weights_digest(weights, salt=repr(_computing_fields(model.config)))


def _computing_fields(config: Wav2Vec2BertConfig) -> list[tuple[str, object]]:
    names = {field.name for field in fields(config)} - _WITHOUT_EFFECT
    names |= set(POSITION_SCHEMES[config.position_embeddings_type].extra_fields)
    return [(name, getattr(config, name, None)) for name in sorted(names)]
