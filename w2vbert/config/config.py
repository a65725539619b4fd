"""What a Wav2Vec2-BERT model is told: every published field, with its published default, checked.

Field names and defaults are those of `transformers` 5.23 (`Wav2Vec2BertConfig`), so a `config.json` of either
side is read by the other. A field unknown to us is kept and written back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch

from w2vbert.config.checks import MAX_LABELS, labels_by_number, validate
from w2vbert.config.files import ConfigFiles
from w2vbert.fields import ConfigError, shown, whole

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


@dataclass(init=False, eq=False, repr=False)
class Wav2Vec2BertConfig(ConfigFiles):
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
    # What libraries ask every published configuration.
    is_encoder_decoder: ClassVar[bool] = False
    has_no_defaults_at_init: ClassVar[bool] = False
    sub_configs: ClassVar[dict[str, Any]] = {}
    attribute_map: ClassVar[dict[str, str]] = {}
    base_model_tp_plan: ClassVar[None] = None
    base_model_pp_plan: ClassVar[None] = None

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
    dtype: torch.dtype | str | None = None

    def __init__(self, /, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)
        if "torch_dtype" in kwargs:  # the name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        num_labels = kwargs.pop("num_labels", None)
        self._attn_implementation: str | None = kwargs.pop("attn_implementation", None)
        for field in fields(self):
            setattr(self, field.name, kwargs.pop(field.name, field.default))
        for name, value in kwargs.items():
            own = getattr(type(self), name, None)
            if callable(own) or name.startswith("__") or (isinstance(own, property) and own.fset is None):
                raise ConfigError(name, "is no field, and a configuration cannot keep a key of this name")
            setattr(self, name, value)

        if self.output_hidden_size is None:
            self.output_hidden_size = self.hidden_size
        self._settle_labels(num_labels)
        self.validate()

    def _settle_labels(self, num_labels: int | None) -> None:
        if self.id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
            return
        if num_labels is not None and num_labels != self.num_labels:
            raise ConfigError(
                "num_labels", f"{shown(num_labels)}, but id2label names {self.num_labels} labels"
            )
        if self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        """Fields are what the published ones are: labels numbered by integers, a dtype of torch."""
        if name == "id2label" and isinstance(value, Mapping):
            value = labels_by_number(value)
        elif name == "dtype" and isinstance(value, str):
            dtype = getattr(torch, value.removeprefix("torch."), None)
            value = dtype if isinstance(dtype, torch.dtype) else value
        super().__setattr__(name, value)

    @classmethod
    def of(cls, config: Any) -> Self:
        """This configuration, or one of the same content for that of another implementation.

        Raises:
            TypeError: not a configuration.
            ConfigError: as `from_dict`.
        """
        if isinstance(config, cls):
            return config
        if not hasattr(config, "to_dict") or not hasattr(config, "model_type"):
            raise TypeError(
                f"config must be a {cls.__name__}, is {shown(config)}; from_pretrained loads a checkpoint"
            )
        return cls.from_dict({k: v for k, v in config.to_dict().items() if not k.startswith("_")})

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set fields; labels that are given by name also settle `label2id`, if that is not given.

        Raises:
            ConfigError: `num_labels` and `id2label` contradict each other.
        """
        given = dict(config_dict)
        num_labels, names = given.pop("num_labels", None), given.get("id2label")
        if num_labels is not None:
            self.num_labels = num_labels
        super().update(given)
        if names is not None:
            self._settle_labels(num_labels)
            if given.get("label2id") is None:
                self.label2id = {label: index for index, label in (self.id2label or {}).items()}

    def validate(self) -> None:
        """Raise `ConfigError` for the first value that no model can have."""
        validate(self)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """As published: of a family with one part, the configuration itself."""
        return self

    @property
    def name_or_path(self) -> str:
        """The checkpoint that it was read from, as published; not written."""
        return vars(self).get("_name_or_path", "")

    @name_or_path.setter
    def name_or_path(self, value: str) -> None:
        self._name_or_path = str(value)

    @property
    def torch_dtype(self) -> torch.dtype | str | None:
        """The name of `dtype` before transformers 5."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: torch.dtype | str | None) -> None:
        self.dtype = value

    @property
    def use_return_dict(self) -> bool:
        """An older name of `return_dict`."""
        return self.return_dict

    @property
    def num_labels(self) -> int:
        """Number of labels in `id2label`. Setting another number renames all labels to `LABEL_<index>`."""
        return len(self.id2label or {})

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        whole("num_labels", count, 1, MAX_LABELS)
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
