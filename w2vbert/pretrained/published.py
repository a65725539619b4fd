"""What scripts and libraries written for the published classes ask a model, besides computing and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import torch
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.adapter import Length, shortened
from w2vbert.encoder.conformer import Checkpointing, Encoder
from w2vbert.fields import shown
from w2vbert.publishable import Publishable

_ATTENTIONS = ("sdpa", "eager")
_Arguments = ParamSpec("_Arguments")
_Output = TypeVar("_Output")


def without_nones(forward: Callable[_Arguments, _Output]) -> Callable[_Arguments, _Output]:
    """A `forward` that takes any keyword whose value is `None`: it asks for nothing.

    peft, told a `task_type`, calls every model with `input_ids=None` and the like.
    """

    @wraps(forward)
    def called(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Output:
        given: Any = {name: value for name, value in named.items() if value is not None}
        return forward(*arguments, **given)

    return called


class PublishedModel(Publishable, nn.Module):
    """A model with the published attributes and methods; what it cannot do, they say.

    Raises:
        TypeError: `config` is no configuration.
        ConfigError: it is one that no model can have.
    """

    _stands_for = ("transformers.modeling_utils", "PreTrainedModel")
    config_class: ClassVar[type[Wav2Vec2BertConfig]] = Wav2Vec2BertConfig
    base_model_prefix: ClassVar[str] = "wav2vec2_bert"
    main_input_name: ClassVar[str] = "input_features"
    input_modalities: ClassVar[str] = "audio"
    supports_gradient_checkpointing: ClassVar[bool] = True
    # Read by accelerate, peft, FSDP and Trainer.
    _no_split_modules: ClassVar[list[str]] = ["EncoderLayer"]
    _tied_weights_keys: ClassVar[None] = None
    all_tied_weights_keys: ClassVar[dict[str, str]] = {}
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_missing: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str] | None] = None
    _keep_in_fp32_modules: ClassVar[frozenset[str]] = frozenset()
    _keep_in_fp32_modules_strict: ClassVar[frozenset[str]] = frozenset()
    _can_record_outputs: ClassVar[None] = None  # layers are not hooked: they return what is asked for
    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = False
    _supports_flex_attn: ClassVar[bool] = False
    _supports_attention_backend: ClassVar[bool] = False
    # One device holds a model whole.
    tp_size: ClassVar[None] = None
    tp_plan: ClassVar[dict[str, str]] = {}
    supports_tp_plan: ClassVar[bool] = False

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.name_or_path = config.name_or_path
        self._input_hooks: list[torch.utils.hooks.RemovableHandle] = []
        config._attn_implementation = _attention(config._attn_implementation or "sdpa")

    # What it is

    @property
    def base_model(self) -> Self:
        """The encoder of a task model; a bare model itself."""
        base: Self = getattr(self, self.base_model_prefix, self)
        return base

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A clip of a second, silent: what `forward` takes."""
        frames = torch.zeros(1, 50, self.config.feature_projection_input_dim)
        return {self.main_input_name: frames.to(self.device, self.dtype)}

    def get_encoder(self) -> nn.Module:
        """The layers, as published."""
        encoder: nn.Module = self.base_model.encoder  # type: ignore[assignment]
        return encoder

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: as published, this is no code of a repository of the hub."""
        return False

    is_remote_code = is_custom_code

    @classmethod
    def can_generate(cls) -> bool:
        """No: the family encodes."""
        return False

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Numbers that are learned, without those of `nn.Embedding` (here: of distances) if so told."""
        left_out = {
            id(module.weight)
            for module in self.modules()
            if exclude_embeddings and isinstance(module, nn.Embedding)
        }
        counted = (p for p in self.parameters() if p.requires_grad or not only_trainable)
        return sum(parameter.numel() for parameter in counted if id(parameter) not in left_out)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters and, unless told not to count them, of the buffers."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Tags for the card that `push_to_hub` writes."""
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*(self.model_tags or []), *new]))

    def _get_feat_extract_output_lengths(
        self, input_lengths: Length, add_adapter: bool | None = None
    ) -> Length:
        """Frames of the logits of clips of so many frames."""
        if self.config.add_adapter if add_adapter is None else add_adapter:
            for _ in range(self.config.num_adapter_layers):
                input_lengths = shortened(self.config, input_lengths)
        return input_lengths

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor, add_adapter: bool | None = None
    ) -> Tensor:
        """(batch, feature_vector_length), true on the frames that heads read of clips with this mask."""
        lengths = self._get_feat_extract_output_lengths(attention_mask.long().sum(dim=-1), add_adapter)
        return torch.arange(feature_vector_length, device=attention_mask.device) < lengths[:, None]

    def _initialize_weights(self, module: nn.Module, is_remote_code: bool = False) -> None:
        """Asked of its parts by a model of `transformers` around this one: the constructor has done so."""

    # Embeddings: there are no tokens

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} reads features, and has no embeddings of tokens")

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """None, as published."""

    def tie_weights(self, **kwargs: Any) -> None:
        """Nothing is tied."""

    # Attention

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return False

    def set_attn_implementation(self, attn_implementation: str | Mapping[str, str]) -> None:
        """Takes "sdpa" and "eager", which here are one: PyTorch's fused attention, and weights on demand.

        Raises:
            ValueError: another name.
        """
        if isinstance(attn_implementation, Mapping):
            attn_implementation = attn_implementation.get("", str(self.config._attn_implementation))
        self.config._attn_implementation = _attention(attn_implementation)

    # Training

    def freeze_base_model(self) -> None:
        """Take the encoder out of training: only the head's parameters get gradients."""
        self.base_model.requires_grad_(False)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute the activations of layers in the backward pass instead of keeping them.

        Args:
            activation_checkpointing_kwargs: of `torch.utils.checkpoint.checkpoint`; `use_reentrant=False`
                when omitted.
            every_n_layers: 2 recomputes every second layer only, and so on.
            offload: keep what layers start from on the CPU.
        """
        arguments = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        for encoder in self._encoders():
            encoder.gradient_checkpointing = True
            encoder.checkpointing = Checkpointing(every_n_layers, offload, arguments)

    def activation_checkpointing_disable(self) -> None:
        for encoder in self._encoders():
            encoder.gradient_checkpointing = False

    @property
    def is_activation_checkpointing(self) -> bool:
        return any(encoder.gradient_checkpointing for encoder in self._encoders())

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """The older name of `activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """The older name of `is_activation_checkpointing`."""
        return self.is_activation_checkpointing

    def _encoders(self) -> list[Encoder]:
        return [module for module in self.modules() if isinstance(module, Encoder)]

    def enable_input_require_grads(self) -> None:
        """Let the gradient reach the projected features, though all weights before them be frozen.

        Adapters in the layers get no gradient otherwise where checkpoints are reentrant.
        """
        projection: nn.Module = self.base_model.feature_projection  # type: ignore[assignment]
        self._input_hooks.append(projection.register_forward_hook(_require_gradient))

    def disable_input_require_grads(self) -> None:
        while self._input_hooks:
            self._input_hooks.pop().remove()


def _attention(name: str) -> str:
    if name not in _ATTENTIONS:
        raise ValueError(
            f'Specified `attn_implementation="{name}"` is not supported: there is one attention here, which '
            f"goes by the names {', '.join(_ATTENTIONS)} (given: {shown(name)})"
        )
    return name


def _require_gradient(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
    output[0].requires_grad_(True)
