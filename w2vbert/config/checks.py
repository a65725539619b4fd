"""The values that a configuration can have."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from w2vbert.encoder.activations import ACTIVATIONS
from w2vbert.encoder.positions import POSITION_SCHEMES
from w2vbert.fields import MAX_TOKENS, ConfigError, flag, mapping, real, shown, text, whole

if TYPE_CHECKING:
    from w2vbert.config.config import Wav2Vec2BertConfig

MAX_LABELS = 1 << 17
_MAX_WIDTH = 1 << 14
_MAX_LAYERS = 128
_MAX_KERNEL = 1023
_MAX_STRIDE = 64  # of the adapter: a frame of 1.3 s
_ANY = 2**31 - 1

# From the lowest to the highest value of each.
_WHOLE = {
    **dict.fromkeys(("hidden_size", "output_hidden_size", "feature_projection_input_dim"), (1, _MAX_WIDTH)),
    **dict.fromkeys(("intermediate_size", "classifier_proj_size", "xvector_output_dim"), (1, 4 * _MAX_WIDTH)),
    "num_attention_heads": (1, _MAX_WIDTH),
    **dict.fromkeys(("num_hidden_layers", "num_adapter_layers"), (0, _MAX_LAYERS)),
    **dict.fromkeys(("conv_depthwise_kernel_size", "adapter_kernel_size"), (1, _MAX_KERNEL)),
    "adapter_stride": (1, _MAX_STRIDE),
    **dict.fromkeys(("left_max_position_embeddings", "right_max_position_embeddings"), (0, 1 << 16)),
    **dict.fromkeys(("max_source_positions", "rotary_embedding_base"), (1, _ANY)),
    **dict.fromkeys(("mask_time_length", "mask_feature_length"), (1, _ANY)),
    **dict.fromkeys(("mask_time_min_masks", "mask_feature_min_masks"), (0, _ANY)),
}
_TDNN = {"tdnn_dim": _MAX_WIDTH, "tdnn_kernel": _MAX_KERNEL, "tdnn_dilation": _MAX_KERNEL}
_PROBABILITIES = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "final_dropout",
    "conformer_conv_dropout",
    "layerdrop",
    "mask_time_prob",
    "mask_feature_prob",
)
# From zero to the highest value of each.
_REAL = {**dict.fromkeys(_PROBABILITIES, 1.0), "layer_norm_eps": 1.0, "initializer_range": 1e3}
_FLAGS = (
    "apply_spec_augment",
    "add_adapter",
    "use_intermediate_ffn_before_adapter",
    "ctc_zero_infinity",
    "use_weighted_layer_sum",
)
_CHOICES: dict[str, Collection[object]] = {
    "hidden_act": ACTIVATIONS,
    "adapter_act": ACTIVATIONS,
    "position_embeddings_type": POSITION_SCHEMES,
    "ctc_loss_reduction": ("sum", "mean", "none"),
    "problem_type": ("regression", "single_label_classification", "multi_label_classification", None),
    # As published, None is no.
    **dict.fromkeys(("output_hidden_states", "output_attentions", "return_dict"), (True, False, None)),
}


def validate(config: Wav2Vec2BertConfig) -> None:
    """Raise `ConfigError` for the first value that no model can have."""
    for name, (lowest, highest) in _WHOLE.items():
        whole(name, getattr(config, name), lowest, highest)
    for name, most in _REAL.items():
        real(name, getattr(config, name), 0.0, most)
    for name in _FLAGS:
        flag(name, getattr(config, name))
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in tuple(choices):  # a value may be unhashable
            known = ", ".join(repr(choice) for choice in choices)
            raise ConfigError(name, f"must be one of {known}, is {shown(getattr(config, name))}")
    if config.vocab_size is not None:
        whole("vocab_size", config.vocab_size, 1, MAX_TOKENS)
    _validate_tokens(config)
    _validate_shapes(config)
    _validate_tdnn(config)
    _validate_labels(config)


def _validate_tokens(config: Wav2Vec2BertConfig) -> None:
    """Some write -1 for a token that there is not."""
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        several = name == "eos_token_id" and isinstance(value, list)
        for index in value if several else [value]:
            if index is not None:
                whole(name, index, -1, MAX_TOKENS - 1)


def _validate_shapes(config: Wav2Vec2BertConfig) -> None:
    heads = config.num_attention_heads
    if config.hidden_size % heads:
        raise ConfigError("hidden_size", f"{config.hidden_size} does not divide into {heads} attention heads")
    if config.add_adapter and config.encoded_size % heads:
        raise ConfigError(
            "output_hidden_size", f"{config.encoded_size} does not divide into {heads} attention heads"
        )
    if config.add_adapter:
        whole("adapter_stride ** num_adapter_layers", config.total_stride, 1, _MAX_STRIDE)
    try:
        POSITION_SCHEMES[config.position_embeddings_type].check(config)
    except ValueError as error:
        raise ConfigError("position_embeddings_type", str(error)) from None
    if config.conv_depthwise_kernel_size % 2 == 0:
        raise ConfigError(
            "conv_depthwise_kernel_size", f"must be odd, is {config.conv_depthwise_kernel_size}"
        )
    if config.use_intermediate_ffn_before_adapter and not config.add_adapter:
        raise ConfigError("use_intermediate_ffn_before_adapter", "is set, but add_adapter is not")


def _validate_tdnn(config: Wav2Vec2BertConfig) -> None:
    for name, highest in _TDNN.items():
        values = getattr(config, name)
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MAX_LAYERS:
            raise ConfigError(name, f"must be a list of 1 to {_MAX_LAYERS} numbers, is {shown(values)}")
        for index, value in enumerate(values):
            whole(f"{name}[{index}]", value, 1, highest)
    lengths = {name: len(getattr(config, name)) for name in _TDNN}
    if len(set(lengths.values())) > 1:
        raise ConfigError("tdnn_dim", f"the TDNN lists must be of one length, are {lengths}")


def _validate_labels(config: Wav2Vec2BertConfig) -> None:
    indices = sorted(mapping("id2label", config.id2label))
    if indices != list(range(len(indices))):
        raise ConfigError("id2label", f"must number its labels 0, 1, 2, ..., has {shown(indices)}")
    if config.label2id is not None:
        mapping("label2id", config.label2id)
    if config.problem_type == "single_label_classification" and config.num_labels == 1:
        raise ConfigError("problem_type", "'single_label_classification' needs at least 2 labels, has 1")
    for name in config.architectures or [] if isinstance(config.architectures, list | None) else [None]:
        text("architectures", name)


def labels_by_number(labels: object) -> dict[int, str]:
    """`id2label` with numbers for keys, which JSON cannot have.

    Raises:
        ConfigError: not an object, or a key that is no number.
    """
    whole("num_labels", len(mapping("id2label", labels)), 0, MAX_LABELS)
    try:
        numbered = {int(index): label for index, label in mapping("id2label", labels).items()}
    except (TypeError, ValueError):
        raise ConfigError("id2label", f"must number its labels, is {shown(labels)}") from None
    return {index: text("id2label", label) for index, label in numbered.items()}
