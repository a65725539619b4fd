"""What a Wav2Vec2-BERT model is told: every published field, with its published default, checked.

Field names and defaults are those of `transformers` 5.23 (`Wav2Vec2BertConfig`), so a `config.json` of either
side is read by the other. A field unknown to us is kept and written back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from w2vbert.encoder.activations import ACTIVATIONS
from w2vbert.encoder.positions import POSITION_SCHEMES
from w2vbert.fields import MAX_TOKENS, ConfigError, fields_of, flag, mapping, real, shown, text, whole
from w2vbert.pretrained.hub import Source, read_json

__all__ = ["CONFIG_NAME", "ConfigError", "ProblemType", "Wav2Vec2BertConfig"]

CONFIG_NAME = "config.json"

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


@dataclass(init=False, eq=False)
class Wav2Vec2BertConfig:
    """Sizes, regularisation and head settings of a Wav2Vec2-BERT model.

    Takes the published keyword arguments, and `num_labels` as a short way to say `id2label`. Any further
    keyword becomes an attribute and survives `save_pretrained`.

    Some fields deserve a word:

    - `max_source_positions`: frames for which the published code tabulates the sinusoids of `relative` in
      advance. Its table grows when it must, and ours are computed for the frames at hand: it limits nothing.
    - `output_hidden_size`: width after the adapter; `None` means `hidden_size`.

    Raises:
        ConfigError: a value that no model can have; names the field and the reason.
    """

    model_type: ClassVar[str] = "wav2vec2-bert"

    vocab_size: int | None = None
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    hidden_act: str = "swish"
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    # Regularisation
    hidden_dropout: float = 0.0
    activation_dropout: float = 0.0
    attention_dropout: float = 0.0
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    layerdrop: float = 0.1

    # SpecAugment
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0

    # Positions
    position_embeddings_type: str | None = "relative_key"
    rotary_embedding_base: int = 10000
    max_source_positions: int = 5000
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8

    # Convolution
    conv_depthwise_kernel_size: int = 31
    conformer_conv_dropout: float = 0.1

    # Adapter
    add_adapter: bool = False
    adapter_kernel_size: int = 3
    adapter_stride: int = 2
    num_adapter_layers: int = 1
    adapter_act: str = "relu"
    use_intermediate_ffn_before_adapter: bool = False
    output_hidden_size: int | None = None

    # Heads
    ctc_loss_reduction: str = "sum"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 768
    tdnn_dim: Sequence[int] = (512, 512, 512, 512, 1500)
    tdnn_kernel: Sequence[int] = (5, 3, 3, 1, 1)
    tdnn_dilation: Sequence[int] = (1, 2, 3, 1, 1)
    xvector_output_dim: int = 512
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: ProblemType | None = None

    # Tokens
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    # Outputs
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True

    # Provenance
    architectures: list[str] | None = None
    dtype: str | None = None

    def __init__(self, /, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)
        if "torch_dtype" in kwargs:  # the name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        num_labels = kwargs.pop("num_labels", None)
        for field in fields(self):
            setattr(self, field.name, kwargs.pop(field.name, field.default))
        for name, value in kwargs.items():
            if hasattr(type(self), name):
                raise ConfigError(name, "is no field, and a configuration cannot keep a key of this name")
            setattr(self, name, value)

        if self.dtype is not None:
            self.dtype = str(self.dtype).removeprefix("torch.")
        if self.output_hidden_size is None:
            self.output_hidden_size = self.hidden_size
        self._settle_labels(num_labels)
        self.validate()

    def _settle_labels(self, num_labels: int | None) -> None:
        if self.id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
            return
        whole("num_labels", len(mapping("id2label", self.id2label)), 0, _MAX_LABELS)
        try:
            labels = {int(index): label for index, label in self.id2label.items()}  # JSON has string keys
        except (TypeError, ValueError):
            raise ConfigError("id2label", f"must number its labels, is {shown(self.id2label)}") from None
        self.id2label = {index: text("id2label", label) for index, label in labels.items()}
        if num_labels is not None and num_labels != len(labels):
            raise ConfigError("num_labels", f"{shown(num_labels)}, but id2label names {len(labels)} labels")
        if self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """Number of labels in `id2label`. Setting another number renames all labels to `LABEL_<index>`."""
        return len(self.id2label or {})

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        whole("num_labels", count, 1, _MAX_LABELS)
        if self.id2label is None or len(self.id2label) != count:
            self.id2label = {index: f"LABEL_{index}" for index in range(count)}
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def head_size(self) -> int:
        """Width of one attention head of the encoder."""
        return self.hidden_size // self.num_attention_heads

    @property
    def encoded_size(self) -> int:
        """Width of the frames that heads read: after the adapter, if there is one."""
        return (self.output_hidden_size or self.hidden_size) if self.add_adapter else self.hidden_size

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Audio samples per logit frame: twice the feature width, times the adapter's strides."""
        return 2 * self.feature_projection_input_dim * self.total_stride

    @property
    def total_stride(self) -> int:
        """Encoder frames in one logit frame: 1 without an adapter."""
        return int(self.adapter_stride**self.num_adapter_layers) if self.add_adapter else 1

    # Reading and writing

    def to_dict(self) -> dict[str, Any]:
        """All fields and kept unknown keys as plain JSON values (tuples become lists)."""
        values = {name: list(v) if isinstance(v, tuple) else deepcopy(v) for name, v in vars(self).items()}
        return {**values, "model_type": self.model_type}

    def to_json_string(self) -> str:
        """The text of `config.json`: keys sorted, newline at the end."""
        # Keys of id2label are numbers, so the keys cannot be sorted by json itself once unknown ones mix in.
        return json.dumps(dict(sorted(self.to_dict().items())), indent=2) + "\n"

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` into `save_directory`, which is made if need be."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **overrides: Any) -> Self:
        """Build from the content of a `config.json`; `overrides` win over it.

        Raises:
            ConfigError: an impossible value, another family's `model_type`, or an override that is no field.
        """
        return cls._from_content(deepcopy(dict(config_dict)), overrides)

    @classmethod
    def _from_content(cls, config_dict: dict[str, Any], overrides: Mapping[str, Any]) -> Self:
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(
                "model_type", f"this configuration is of {shown(model_type)}, not {cls.model_type!r}"
            )
        config = cls(**config_dict)
        for name, value in overrides.items():
            if not hasattr(config, name):
                raise ConfigError(name, "is no field of this configuration, so it cannot be overridden")
            setattr(config, name, value)
        config.validate()
        return config

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Read `config.json` of a checkpoint.

        Args:
            name_or_path: a directory, or an id on the Hugging Face hub.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); fields that win over the file's.

        Raises:
            CheckpointNotFoundError: there is no such file.
            ConfigError: as `from_dict`, or the file is no JSON object.
        """
        path = Source.take(name_or_path, kwargs).file(CONFIG_NAME)
        content = read_json(path)
        with fields_of(path):
            return cls._from_content(content, kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wav2Vec2BertConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    # Checks

    def validate(self) -> None:
        """Raise `ConfigError` for the first value that no model can have."""
        for name, (lowest, highest) in _WHOLE.items():
            whole(name, getattr(self, name), lowest, highest)
        for name, most in _REAL.items():
            real(name, getattr(self, name), 0.0, most)
        for name in _FLAGS:
            flag(name, getattr(self, name))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in tuple(choices):  # a value may be unhashable
                known = ", ".join(repr(choice) for choice in choices)
                raise ConfigError(name, f"must be one of {known}, is {shown(getattr(self, name))}")
        if self.vocab_size is not None:
            whole("vocab_size", self.vocab_size, 1, MAX_TOKENS)
        self._validate_tokens()
        self._validate_shapes()
        self._validate_tdnn()
        self._validate_labels()

    def _validate_tokens(self) -> None:
        """Some write -1 for a token that there is not."""
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            value = getattr(self, name)
            several = name == "eos_token_id" and isinstance(value, list)
            for index in value if several else [value]:
                if index is not None:
                    whole(name, index, -1, MAX_TOKENS - 1)

    def _validate_shapes(self) -> None:
        heads = self.num_attention_heads
        if self.hidden_size % heads:
            raise ConfigError(
                "hidden_size", f"{self.hidden_size} does not divide into {heads} attention heads"
            )
        if self.add_adapter and self.encoded_size % heads:
            raise ConfigError(
                "output_hidden_size", f"{self.encoded_size} does not divide into {heads} attention heads"
            )
        if self.add_adapter:
            whole("adapter_stride ** num_adapter_layers", self.total_stride, 1, _MAX_STRIDE)
        try:
            POSITION_SCHEMES[self.position_embeddings_type].check(self)
        except ValueError as error:
            raise ConfigError("position_embeddings_type", str(error)) from None
        if self.conv_depthwise_kernel_size % 2 == 0:
            raise ConfigError(
                "conv_depthwise_kernel_size", f"must be odd, is {self.conv_depthwise_kernel_size}"
            )
        if self.use_intermediate_ffn_before_adapter and not self.add_adapter:
            raise ConfigError("use_intermediate_ffn_before_adapter", "is set, but add_adapter is not")

    def _validate_tdnn(self) -> None:
        for name, highest in _TDNN.items():
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MAX_LAYERS:
                raise ConfigError(name, f"must be a list of 1 to {_MAX_LAYERS} numbers, is {shown(values)}")
            for index, value in enumerate(values):
                whole(f"{name}[{index}]", value, 1, highest)
        lengths = {name: len(getattr(self, name)) for name in _TDNN}
        if len(set(lengths.values())) > 1:
            raise ConfigError("tdnn_dim", f"the TDNN lists must be of one length, are {lengths}")

    def _validate_labels(self) -> None:
        indices = sorted(self.id2label or ())
        if indices != list(range(len(indices))):
            raise ConfigError("id2label", f"must number its labels 0, 1, 2, ..., has {shown(indices)}")
        if self.label2id is not None:
            mapping("label2id", self.label2id)
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ConfigError("problem_type", "'single_label_classification' needs at least 2 labels, has 1")
        for name in self.architectures or [] if isinstance(self.architectures, list | None) else [None]:
            text("architectures", name)


_MAX_WIDTH = 1 << 14
_MAX_LAYERS = 128
_MAX_KERNEL = 1023
_MAX_LABELS = 1 << 17
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
