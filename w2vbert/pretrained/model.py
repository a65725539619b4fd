"""Models as checkpoints: a directory, or a repository of the hub, with `config.json` and weights.

State-dict keys are the published ones. A task class keeps the encoder under `wav2vec2_bert.`, the bare model
has no prefix; this file is the only place that knows how the two fit together. (The family has no older
spellings of its keys: no weight normalisation, and its position tables were never saved.)
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.pretrained import hub
from w2vbert.pretrained.weights import (
    CheckpointError,
    StoredTensor,
    digest,
    enumerate_names,
    open_weights,
    save_weights,
)

__all__ = ["CheckpointError", "PreTrainedModel", "backbone_digest", "weights_digest"]

logger = logging.getLogger(__name__)

# What callers of the published `from_pretrained` pass and what changes nothing here: weights are always
# mapped, and there is one attention, whose backend the encoder chooses.
_WITHOUT_EFFECT = {
    "attn_implementation",
    "force_download",
    "low_cpu_mem_usage",
    "proxies",
    "resume_download",
    "trust_remote_code",
}

# The fields of a configuration that change what the encoder computes from given weights, beyond their shapes.
_BACKBONE_FIELDS = (
    "hidden_act",
    "num_attention_heads",
    "layer_norm_eps",
    "position_embeddings_type",
    "rotary_embedding_base",
    "left_max_position_embeddings",
    "right_max_position_embeddings",
    "add_adapter",
    "adapter_act",
    "adapter_stride",
    "adapter_reads_padding",
)


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from: a directory or a hub id, and how to ask the hub."""

    name_or_path: str | Path
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False

    def file(self, filename: str) -> Path | None:
        """The local path of a file of the checkpoint, `None` where it has none."""
        return hub.checkpoint_file(
            self.name_or_path,
            filename,
            revision=self.revision,
            cache_dir=self.cache_dir,
            token=self.token,
            local_files_only=self.local_files_only,
            required=False,
        )

    def config(self, overrides: Mapping[str, Any]) -> Wav2Vec2BertConfig:
        """The checkpoint's configuration with some of its fields replaced."""
        return Wav2Vec2BertConfig.from_pretrained(
            self.name_or_path,
            revision=self.revision,
            cache_dir=self.cache_dir,
            token=self.token,
            local_files_only=self.local_files_only,
            **overrides,
        )


class PreTrainedModel(nn.Module):
    """A module with a configuration that can be saved, loaded and initialised as published.

    A subclass builds its parts in `__init__(config)`, ends that with `self.post_init()`, and extends
    `_init_weights` for parameters with a scheme of their own.
    """

    base_model_prefix: ClassVar[str] = "wav2vec2_bert"
    main_input_name: ClassVar[str] = "input_features"

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.name_or_path = ""

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder of a task model; a bare model itself."""
        base: PreTrainedModel = getattr(self, self.base_model_prefix, self)
        return base

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    def num_parameters(self, only_trainable: bool = False) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    # -- initial weights -------------------------------------------------------------------------------------

    def post_init(self) -> None:
        """Initialise what this class has built; the last act of its constructor."""
        # A nested model has initialised itself: drawing hundreds of millions of numbers twice takes seconds.
        self._initialise(nested=False)

    def init_weights(self) -> None:
        """Initialise all weights and non-persistent buffers by the published scheme."""
        self._initialise(nested=True)

    @torch.no_grad()
    def _initialise(self, *, nested: bool) -> None:
        def visit(module: nn.Module) -> None:  # children first: a parent's scheme overrides theirs
            for child in module.children():
                if not isinstance(child, PreTrainedModel):
                    visit(child)
                elif nested:
                    child.init_weights()
            self._init_weights(module)

        visit(self)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the parameters and non-persistent buffers that belong to one module directly.

        The published scheme: linear layers and embeddings normal with `initializer_range`, biases zero, norms
        the identity, convolutions Kaiming-normal (He et al. 2015, arXiv:1502.01852) with uniform biases.
        """
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                bound = (module.groups / (module.in_channels * module.kernel_size[0])) ** 0.5
                nn.init.uniform_(module.bias, -bound, bound)

    # -- training --------------------------------------------------------------------------------------------

    def freeze_base_model(self) -> None:
        """Take the encoder out of training: only the head's parameters get gradients."""
        self.base_model.requires_grad_(False)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Recompute each layer's activations in the backward pass instead of keeping them.

        The argument is there for callers of the published method; checkpoints are always non-reentrant.
        """
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def _set_gradient_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = enabled  # type: ignore[assignment]

    # -- files -----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: Wav2Vec2BertConfig | str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        backbone: PreTrainedModel | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model, in evaluation mode.

        A task class loads from the checkpoint of another task or of the bare encoder, and the bare model from
        any of them. What the checkpoint lacks is initialised by the published scheme; that, and what it holds
        in vain, is logged as a warning with the names. Weights are held once: the model is built without
        memory, then takes the tensors of the files as they are mapped.

        Args:
            pretrained_model_name_or_path: a directory, or an id on the Hugging Face hub.
            config: a configuration, or where to read one, instead of the checkpoint's.
            dtype: floating type of the weights, such as `torch.bfloat16` or "bfloat16". "auto", and so no
                value: what `config.json` says, else that of the stored weights.
            device: where the weights go; the CPU when omitted.
            backbone: a loaded encoder that a task model takes as its own: of the checkpoint only the head is
                read. Models with equal `backbone_digest` may share one.
            revision, cache_dir, token, local_files_only: as in `huggingface_hub`.
            ignore_mismatched_sizes: initialise weights of another shape anew instead of raising.
            output_loading_info: also return a dictionary of the names that were missing, unexpected or
                mismatched (with the stored and the expected shape).
            use_safetensors: admit only safetensors (`True`) or only `pytorch_model.bin` (`False`).
            kwargs: fields of the configuration to replace, such as `vocab_size=32`; also the published
                `torch_dtype` (for `dtype`) and `device_map` (one device).

        Returns:
            The model; with `output_loading_info` the model and the dictionary.

        Raises:
            CheckpointNotFoundError: nothing there, or out of reach.
            CheckpointError: damaged files, weights of other shapes, or of another kind of model.
            ConfigError: a field with an impossible value, or an argument that is no field.
        """
        if kwargs.pop("weights_only", True) is not True:
            raise ValueError(
                "pickled weights are only read with weights_only=True: anything else can run code"
            )
        torch_dtype, device_map = kwargs.pop("torch_dtype", None), kwargs.pop("device_map", None)
        target = _device(device_map if device is None else device)
        overrides = {name: value for name, value in kwargs.items() if name not in _WITHOUT_EFFECT}
        source = Source(pretrained_model_name_or_path, revision, cache_dir, token, local_files_only)
        if isinstance(config, Wav2Vec2BertConfig):
            config = Wav2Vec2BertConfig.from_dict(config.to_dict(), **overrides)
        else:
            config = (source if config is None else replace(source, name_or_path=config)).config(overrides)
        stored = open_weights(source.file, device=target, use_safetensors=use_safetensors)
        config = cls._complete_config(config, source, stored)
        floats = _float_dtype(torch_dtype if dtype is None else dtype, config, stored)
        with torch.device("meta"), _NoDrawsWithoutMemory():
            model = cls(config)
        model.name_or_path = str(pretrained_model_name_or_path)
        info = model._load(
            stored, target, floats, ignore_mismatched_sizes=ignore_mismatched_sizes, backbone=backbone
        )
        model.eval()
        return (model, info) if output_loading_info else model  # type: ignore[return-value]

    @classmethod
    def _complete_config(
        cls, config: Wav2Vec2BertConfig, source: Source, stored: Mapping[str, StoredTensor]
    ) -> Wav2Vec2BertConfig:
        """Fill in what the class needs and the configuration leaves open."""
        return config

    def _load(
        self,
        stored: Mapping[str, StoredTensor],
        device: torch.device,
        dtype: torch.dtype,
        *,
        ignore_mismatched_sizes: bool,
        backbone: PreTrainedModel | None,
    ) -> dict[str, Any]:
        """Give a model without memory its weights."""
        expected = self.state_dict()
        if backbone is None:
            stored = self._rename(stored, expected)
        else:
            prefix = self.base_model_prefix + "."
            expected = {name: tensor for name, tensor in expected.items() if not name.startswith(prefix)}
            stored = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
        found = stored.keys() & expected.keys()
        if not found:
            raise CheckpointError(
                f"{self.name_or_path}: none of its weights belongs to {type(self).__name__}; it holds "
                f"{enumerate_names(list(stored), limit=5)}"
            )
        mismatched = {
            (name, stored[name].shape, tuple(expected[name].shape))
            for name in found
            if stored[name].shape != expected[name].shape
        }
        if mismatched and not ignore_mismatched_sizes:
            shapes = "; ".join(
                f"{name} is {stored_shape}, should be {shape}"
                for name, stored_shape, shape in sorted(mismatched)
            )
            raise CheckpointError(
                f"{self.name_or_path} does not fit the configuration of {type(self).__name__}: {shapes}. "
                "Correct the configuration, or pass ignore_mismatched_sizes=True to initialise these anew."
            )
        taken = found - {name for name, _, _ in mismatched}
        missing = expected.keys() - found
        unexpected = stored.keys() - found

        # Drawn first: initialising a tensor that is still without memory does nothing and costs nothing.
        _materialise(self, set(expected) - taken, device, dtype)
        with _NoDrawsWithoutMemory():
            self.init_weights()
        weights = {name: _cast(stored[name].read().to(device), dtype) for name in sorted(taken)}
        self.load_state_dict(weights, strict=False, assign=True)
        if backbone is not None:
            setattr(self, self.base_model_prefix, backbone)
        self._report(missing, unexpected, mismatched)
        return {
            "missing_keys": set(missing),
            "unexpected_keys": set(unexpected),
            "mismatched_keys": mismatched,
            "error_msgs": [],
        }

    def _rename(
        self, stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]
    ) -> Mapping[str, StoredTensor]:
        """Names of a bare encoder for a task model, and the other way round."""
        prefix = self.base_model_prefix + "."
        has_prefix = any(name.startswith(prefix) for name in stored)
        wants_prefix = any(name.startswith(prefix) for name in expected)
        if has_prefix and not wants_prefix:
            return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
        if wants_prefix and not has_prefix:
            return {name if name in expected else prefix + name: tensor for name, tensor in stored.items()}
        return stored

    def _report(
        self,
        missing: set[str],
        unexpected: set[str],
        mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]],
    ) -> None:
        kind = type(self).__name__
        if missing:
            logger.warning(
                "%s has no weights for %s of %s: newly initialised, train them before use.",
                self.name_or_path,
                enumerate_names(list(missing)),
                kind,
            )
        if mismatched:
            logger.warning(
                "%s has weights of other shapes for %s of %s: newly initialised, train them before use.",
                self.name_or_path,
                enumerate_names([name for name, _, _ in mismatched]),
                kind,
            )
        if unexpected:
            logger.warning(
                "%s holds weights that %s has no use for: %s.",
                self.name_or_path,
                kind,
                enumerate_names(list(unexpected)),
            )

    def save_pretrained(self, save_directory: str | Path, *, max_shard_size: int | str = "50GB") -> None:
        """Write `config.json` and the weights as safetensors, in the published layout.

        Args:
            save_directory: made where it does not exist; an earlier save in it is replaced.
            max_shard_size: bytes, or a size such as "2GB": larger weights are split over files of that size.
        """
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = str(self.dtype).removeprefix("torch.")
        config.save_pretrained(save_directory)
        save_weights(self.state_dict(), save_directory, max_shard_size=max_shard_size)


def weights_digest(weights: Mapping[str, Tensor] | nn.Module) -> str:
    """SHA-256 (hexadecimal) of a model's weights: their names, types, shapes and values."""
    return digest(weights.state_dict() if isinstance(weights, nn.Module) else weights)


def backbone_digest(model: PreTrainedModel) -> str:
    """SHA-256 (hexadecimal) of an encoder: models with equal digests compute equal hidden states.

    The same for a bare encoder and for any task model around it. It covers the weights and the fields of the
    configuration that change the computation, but not the vector that stands for masked frames, which
    only training reads.
    """
    base = model.base_model
    fields = {name: getattr(model.config, name) for name in _BACKBONE_FIELDS}
    weights = {name: tensor for name, tensor in base.state_dict().items() if name != "masked_spec_embed"}
    return digest(weights, salt=repr(fields))


class _NoDrawsWithoutMemory(TorchFunctionMode):
    """Skips normal draws into tensors without memory, for which torch would import its compiler (seconds)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def _device(device: Any) -> torch.device:
    if isinstance(device, Mapping):
        if list(device) != [""]:
            raise ValueError(f"device_map should name one device for the whole model, got {dict(device)}")
        device = device[""]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cpu" if device is None else device)


def _float_dtype(
    dtype: torch.dtype | str | None, config: Wav2Vec2BertConfig, stored: Mapping[str, StoredTensor]
) -> torch.dtype:
    if dtype is None or dtype == "auto":
        dtype = config.dtype
    if dtype is None:
        return next((t.dtype for t in stored.values() if t.dtype.is_floating_point), torch.float32)
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype should be a floating type such as 'float32' or 'bfloat16', got {dtype!r}")
    return found


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _materialise(model: nn.Module, names: set[str], device: torch.device, dtype: torch.dtype) -> None:
    """Give memory to the named parameters and to all buffers that no checkpoint holds."""

    def allocate(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return torch.zeros_like(tensor, device=device)
        # NaN shows at once where an initialisation is forgotten.
        return torch.full_like(tensor, torch.nan, device=device, dtype=dtype)

    for prefix, module in model.named_modules():
        dot = prefix + "." if prefix else ""
        for name, parameter in module.named_parameters(recurse=False):
            if dot + name in names:
                setattr(
                    module, name, nn.Parameter(allocate(parameter), requires_grad=parameter.requires_grad)
                )
        for name, buffer in module.named_buffers(recurse=False):
            if dot + name in names or name in module._non_persistent_buffers_set:
                setattr(module, name, allocate(buffer))
