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
from w2vbert.pretrained.hub import Source, read_json

CONFIG_NAME = "config.json"

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


class ConfigError(ValueError):
    """A configuration that no model can have. `field` names the culprit."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


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

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)
        if "torch_dtype" in kwargs:  # the name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        num_labels = kwargs.pop("num_labels", None)
        for field in fields(self):
            setattr(self, field.name, kwargs.pop(field.name, field.default))
        for name, value in kwargs.items():
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
        self.id2label = {int(index): label for index, label in self.id2label.items()}  # JSON has string keys
        if num_labels is not None and num_labels != len(self.id2label):
            raise ConfigError("num_labels", f"{num_labels}, but id2label names {len(self.id2label)} labels")
        if self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """Number of labels in `id2label`. Setting another number renames all labels to `LABEL_<index>`."""
        return len(self.id2label or {})

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if not isinstance(count, int) or count < 1:
            raise ConfigError("num_labels", f"must be a whole number of at least 1, is {count!r}")
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
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(
                "model_type", f"this configuration is of {model_type!r}, not {cls.model_type!r}"
            )
        config = cls(**deepcopy(dict(config_dict)))
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
        try:
            content = read_json(path)
        except ValueError as error:
            raise ConfigError(CONFIG_NAME, str(error)) from error
        return cls.from_dict(content, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wav2Vec2BertConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    # Checks

    def validate(self) -> None:
        """Raise `ConfigError` for the first value that no model can have."""
        for name in _POSITIVE:
            _check_whole(name, getattr(self, name), at_least=1)
        for name in _NON_NEGATIVE:
            _check_whole(name, getattr(self, name), at_least=0)
        for name in _PROBABILITIES:
            _check_real(name, getattr(self, name), lowest=0.0, highest=1.0)
        _check_real("layer_norm_eps", self.layer_norm_eps, lowest=0.0)
        _check_real("initializer_range", self.initializer_range, lowest=0.0)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in tuple(choices):  # a value may be unhashable
                known = ", ".join(repr(choice) for choice in choices)
                raise ConfigError(name, f"must be one of {known}, is {getattr(self, name)!r}")
        if self.vocab_size is not None:
            _check_whole("vocab_size", self.vocab_size, at_least=1)
        self._validate_shapes()
        self._validate_tdnn()
        self._validate_labels()

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
        names = ("tdnn_dim", "tdnn_kernel", "tdnn_dilation")
        for name in names:
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values:
                raise ConfigError(name, f"must be a list of whole numbers, is {values!r}")
            for index, value in enumerate(values):
                _check_whole(f"{name}[{index}]", value, at_least=1)
        lengths = {name: len(getattr(self, name)) for name in names}
        if len(set(lengths.values())) > 1:
            raise ConfigError("tdnn_dim", f"the TDNN lists must be of one length, are {lengths}")

    def _validate_labels(self) -> None:
        if self.id2label is not None and sorted(self.id2label) != list(range(len(self.id2label))):
            raise ConfigError("id2label", f"must number its labels 0, 1, 2, ..., has {sorted(self.id2label)}")
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ConfigError("problem_type", "'single_label_classification' needs at least 2 labels, has 1")


_POSITIVE = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "feature_projection_input_dim",
    "mask_time_length",
    "mask_feature_length",
    "rotary_embedding_base",
    "max_source_positions",
    "conv_depthwise_kernel_size",
    "adapter_kernel_size",
    "adapter_stride",
    "output_hidden_size",
    "classifier_proj_size",
    "xvector_output_dim",
)
_NON_NEGATIVE = (
    "num_hidden_layers",
    "num_adapter_layers",
    "mask_time_min_masks",
    "mask_feature_min_masks",
    "left_max_position_embeddings",
    "right_max_position_embeddings",
)
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
_CHOICES: dict[str, Collection[object]] = {
    "hidden_act": ACTIVATIONS,
    "adapter_act": ACTIVATIONS,
    "position_embeddings_type": POSITION_SCHEMES,
    "ctc_loss_reduction": ("sum", "mean", "none"),
    "problem_type": ("regression", "single_label_classification", "multi_label_classification", None),
}


def _check_whole(field: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(field, f"must be a whole number of at least {at_least}, is {value!r}")


def _check_real(field: str, value: object, *, lowest: float, highest: float = float("inf")) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value <= highest:
        bound = f"at least {lowest}" if highest == float("inf") else f"between {lowest} and {highest}"
        raise ConfigError(field, f"must be a number of {bound}, is {value!r}")
