"""Models as checkpoints: a directory, or a repository of the hub, with `config.json` and weights.

State-dict keys are the published ones. A task class keeps the encoder under `wav2vec2_bert.`, the bare model
has no prefix; `loading` is the only file that knows how the two fit together. (The family has no older
spellings of its keys: no weight normalisation, and its position tables were never saved.)
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from w2vbert.config import CONFIG_NAME, Wav2Vec2BertConfig
from w2vbert.fields import fields_of
from w2vbert.pretrained.arguments import without_meaning
from w2vbert.pretrained.hub import Source
from w2vbert.pretrained.loading import (
    NoDrawsWithoutMemory,
    Target,
    float_dtype,
    load_weights,
    target_device,
)
from w2vbert.pretrained.published import PublishedModel
from w2vbert.pretrained.weights import StoredTensor, open_weights, save_weights, weights_of
from w2vbert.publishable import saving_options


class Wav2Vec2BertPreTrainedModel(PublishedModel):
    """A module with a configuration that can be saved, loaded and initialised as published.

    A subclass builds its parts in `__init__(config)`, ends that with `self.post_init()`, and extends
    `_init_weights` for parameters with a scheme of their own.
    """

    # Parameters and modules that only training reads: the vector for masked frames, and the loss.
    training_only: ClassVar[frozenset[str]] = frozenset({"masked_spec_embed", "objective"})

    # Initial weights

    def post_init(self) -> None:
        """Initialise what this class has built; the last act of its constructor."""
        # A nested model has initialised itself: drawing hundreds of millions of numbers twice takes seconds.
        self._initialise(nested=False)
        if vars(self.config).pop("gradient_checkpointing", False):  # of old configurations
            self.activation_checkpointing_enable()

    def init_weights(self) -> None:
        """Initialise all weights and non-persistent buffers by the published scheme."""
        self._initialise(nested=True)

    @torch.no_grad()
    def _initialise(self, *, nested: bool) -> None:
        def visit(module: nn.Module) -> None:  # children first: a parent's scheme overrides theirs
            for child in module.children():
                if not isinstance(child, Wav2Vec2BertPreTrainedModel):
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

    # Files

    @classmethod
    def _from_config(cls, config: Wav2Vec2BertConfig, **kwargs: Any) -> Self:
        """A model of new weights.

        Args:
            kwargs: `dtype` (or `torch_dtype`) of the weights, "auto" for that of the configuration;
                `attn_implementation`.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", config.dtype))
        if name := kwargs.pop("attn_implementation", None):
            config._attn_implementation = name
        model = cls(config, **kwargs)
        return model if dtype is None else model.to(float_dtype(dtype, config, {}))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        config: Wav2Vec2BertConfig | str | os.PathLike[str] | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        backbone: Wav2Vec2BertPreTrainedModel | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        complete: bool = False,
        state_dict: Mapping[str, Tensor] | None = None,
        variant: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model, in evaluation mode.

        A task class loads from the checkpoint of another task or of the bare encoder, and the bare model from
        any of them. What the checkpoint lacks is initialised by the published scheme; that, and what it holds
        in vain, is logged as a warning with the names. Weights are held once: the model is built without
        memory, then takes the tensors of the files as they are mapped.

        Args:
            pretrained_model_name_or_path: a directory, or an id on the Hugging Face hub; `None` where both
                `config` and `state_dict` are given.
            config: a configuration, or where to read one, instead of the checkpoint's.
            dtype: floating type of the weights, such as `torch.bfloat16` or "bfloat16". "auto", and so no
                value: what `config.json` says, else that of the stored weights.
            device: where the weights go; torch's default device when omitted.
            backbone: a loaded encoder that a task model takes as its own: of the checkpoint only the head is
                read. Models with equal `backbone_digest` may share one.
            ignore_mismatched_sizes: initialise weights of another shape at random instead of raising.
            output_loading_info: also return a dictionary of the names that were missing, unexpected or
                mismatched (with the stored and the expected shape).
            use_safetensors: admit only safetensors (`True`) or only `pytorch_model.bin` (`False`).
            complete: refuse a checkpoint that lacks weights, but for those that only training reads, instead
                of initialising them.
            state_dict: weights to load instead of the checkpoint's; they are copied.
            variant: read `model.<variant>.safetensors` and its like.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); fields of the configuration to
                replace, such as `vocab_size=32`; also the published `torch_dtype` (for `dtype`), `device_map`
                (one device, or "auto") and `attn_implementation`. What has no meaning here
                (`quantization_config`) may be `None`.

        Returns:
            The model; with `output_loading_info` the model and the dictionary.

        Raises:
            CheckpointNotFoundError: nothing there, or out of reach.
            CheckpointError: damaged files, weights of other shapes or types, or of another kind of model;
                `MissingWeightsError` where it had to be `complete`.
            ConfigError: a field with an impossible value, or an argument that is no field.
            ValueError: an argument that asks for what there is not.
        """
        if kwargs.pop("weights_only", True) is not True:
            raise ValueError(
                "pickled weights are only read with weights_only=True: anything else can run code"
            )
        kwargs = without_meaning(kwargs, "from_pretrained")
        torch_dtype, device_map = kwargs.pop("torch_dtype", None), kwargs.pop("device_map", None)
        attention = kwargs.pop("attn_implementation", None)
        on = target_device(device_map if device is None else device)
        source = Source.take(pretrained_model_name_or_path or "", kwargs)
        named: AbstractContextManager[None] = nullcontext()
        if config is None or isinstance(config, str | os.PathLike):
            place = source.name_or_path if config is None else config
            config = cls.config_class.from_pretrained(place, **source.options, **kwargs)
            named = fields_of(f"{place}/{CONFIG_NAME}")
        else:
            config = cls.config_class.from_dict(cls.config_class.of(config).to_dict(), **kwargs)
        config._attn_implementation = attention or config._attn_implementation
        if state_dict is None:
            stored = open_weights(source.find, device=on, use_safetensors=use_safetensors, variant=variant)
        else:
            stored = weights_of(state_dict)
        with named:
            config = cls._complete_config(config, source, stored)
            asked = torch_dtype if dtype is None else dtype
            target = Target(on, float_dtype(asked, config, stored))
            if asked is not None:
                config.dtype = target.dtype
            with torch.device("meta"), NoDrawsWithoutMemory():
                model = cls(config)
        model.name_or_path = config.name_or_path = os.fspath(source.name_or_path)
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

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write `config.json` and the weights as safetensors, in the published layout.

        Args:
            save_directory: made where it does not exist; an earlier save in it is replaced.
            is_main_process: `False` writes nothing: another process does.
            state_dict: weights to write instead of the model's.
            push_to_hub: upload them too, to `repo_id` or, where omitted, the name of the directory.
            max_shard_size: bytes, or a size such as "2GB": larger weights are split over files of that size.
            variant: write `model.<variant>.safetensors` and its like.
            kwargs: those of `push_to_hub`. What published callers pass besides is accepted where it changes
                nothing (`safe_serialization=True`, `save_function`).

        Raises:
            ValueError: `safe_serialization=False`, or an argument that asks for what there is not.
        """
        if not kwargs.pop("safe_serialization", True):
            raise ValueError("safe_serialization=False: weights are written as safetensors alone")
        for name in ("save_function", "save_peft_format", "save_original_format"):
            kwargs.pop(name, None)
        options = saving_options(push_to_hub, kwargs)
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype
        config.save_pretrained(folder)
        weights = self.state_dict() if state_dict is None else state_dict
        save_weights(weights, folder, max_shard_size=max_shard_size, variant=variant)
        self._upload(folder, push_to_hub, options)
