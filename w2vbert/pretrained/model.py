"""Models as checkpoints: a directory, or a repository of the hub, with `config.json` and weights.

State-dict keys are the published ones. A task class keeps the encoder under `wav2vec2_bert.`, the bare model
has no prefix; `loading` is the only file that knows how the two fit together. (The family has no older
spellings of its keys: no weight normalisation, and its position tables were never saved.)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from w2vbert.config import CONFIG_NAME, Wav2Vec2BertConfig
from w2vbert.fields import fields_of
from w2vbert.pretrained.hub import Source
from w2vbert.pretrained.loading import (
    NoDrawsWithoutMemory,
    Target,
    float_dtype,
    load_weights,
    target_device,
)
from w2vbert.pretrained.weights import StoredTensor, open_weights, save_weights

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


class PreTrainedModel(nn.Module):
    """A module with a configuration that can be saved, loaded and initialised as published.

    A subclass builds its parts in `__init__(config)`, ends that with `self.post_init()`, and extends
    `_init_weights` for parameters with a scheme of their own.
    """

    base_model_prefix: ClassVar[str] = "wav2vec2_bert"
    main_input_name: ClassVar[str] = "input_features"
    # Parameters and modules that only training reads: the vector for masked frames, and the loss.
    training_only: ClassVar[frozenset[str]] = frozenset({"masked_spec_embed", "objective"})

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
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        complete: bool = False,
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
            ignore_mismatched_sizes: initialise weights of another shape at random instead of raising.
            output_loading_info: also return a dictionary of the names that were missing, unexpected or
                mismatched (with the stored and the expected shape).
            use_safetensors: admit only safetensors (`True`) or only `pytorch_model.bin` (`False`).
            complete: refuse a checkpoint that lacks weights, but for those that only training reads, instead
                of initialising them.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); fields of the configuration to
                replace, such as `vocab_size=32`; also the published `torch_dtype` (for `dtype`) and
                `device_map` (one device).

        Returns:
            The model; with `output_loading_info` the model and the dictionary.

        Raises:
            CheckpointNotFoundError: nothing there, or out of reach.
            CheckpointError: damaged files, weights of other shapes or types, or of another kind of model;
                `MissingWeightsError` where it had to be `complete`.
            ConfigError: a field with an impossible value, or an argument that is no field.
        """
        if kwargs.pop("weights_only", True) is not True:
            raise ValueError(
                "pickled weights are only read with weights_only=True: anything else can run code"
            )
        torch_dtype, device_map = kwargs.pop("torch_dtype", None), kwargs.pop("device_map", None)
        on = target_device(device_map if device is None else device)
        source = Source.take(pretrained_model_name_or_path, kwargs)
        overrides = {name: value for name, value in kwargs.items() if name not in _WITHOUT_EFFECT}
        named: AbstractContextManager[None] = nullcontext()
        if isinstance(config, Wav2Vec2BertConfig):
            config = Wav2Vec2BertConfig.from_dict(config.to_dict(), **overrides)
        else:
            place = source.name_or_path if config is None else config
            config = Wav2Vec2BertConfig.from_pretrained(place, **source.options, **overrides)
            named = fields_of(f"{place}/{CONFIG_NAME}")
        stored = open_weights(source.find, device=on, use_safetensors=use_safetensors)
        with named:
            config = cls._complete_config(config, source, stored)
            target = Target(on, float_dtype(torch_dtype if dtype is None else dtype, config, stored))
            with torch.device("meta"), NoDrawsWithoutMemory():
                model = cls(config)
        model.name_or_path = str(pretrained_model_name_or_path)
        match = load_weights(
            model,
            stored,
            target,
            backbone=backbone,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            complete=complete,
        )
        model.eval()
        return (model, match.info()) if output_loading_info else model  # type: ignore[return-value]

    @classmethod
    def _complete_config(
        cls, config: Wav2Vec2BertConfig, source: Source, stored: Mapping[str, StoredTensor]
    ) -> Wav2Vec2BertConfig:
        """Fill in what the class needs and the configuration leaves open."""
        return config

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
