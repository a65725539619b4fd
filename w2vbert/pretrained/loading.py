"""Weights of a checkpoint into a model that was built without memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from w2vbert.fields import ConfigError, enumerate_names, shown
from w2vbert.pretrained.weights import CheckpointError, MissingWeightsError, StoredTensor

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel

logger = logging.getLogger(__name__)

_FLOATS = {
    **{"float64": torch.float64, "float32": torch.float32, "float16": torch.float16},
    **{"bfloat16": torch.bfloat16, "double": torch.float64, "float": torch.float32, "half": torch.float16},
}
_MANY_PARAMETERS = 1 << 27  # to initialise, whatever the checkpoint holds: new heads and adapters are smaller


@dataclass(frozen=True)
class Match:
    """Which names a model and a checkpoint have in common.

    Attributes:
        fitting: in both, of one shape.
        missing: only the model has them.
        unexpected: only the checkpoint has them.
        mismatched: (name, stored shape, expected shape) of those in both whose shapes differ.
    """

    fitting: set[str]
    missing: set[str]
    unexpected: set[str]
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def of(cls, stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]) -> Match:
        found = stored.keys() & expected.keys()
        mismatched = {
            (name, stored[name].shape, tuple(expected[name].shape))
            for name in found
            if stored[name].shape != expected[name].shape
        }
        fitting = found - {name for name, _, _ in mismatched}
        return cls(fitting, expected.keys() - found, stored.keys() - found, mismatched)

    def info(self) -> dict[str, Any]:
        """As the published `output_loading_info`."""
        return {
            "missing_keys": self.missing,
            "unexpected_keys": self.unexpected,
            "mismatched_keys": self.mismatched,
            "error_msgs": [],
        }

    def log(self, model: Wav2Vec2BertPreTrainedModel) -> None:
        """Warn of weights that the checkpoint lacks or holds in vain."""
        source, kind = model.name_or_path, type(model).__name__
        if self.missing:
            logger.warning(
                "%s has no weights for %s of %s: newly initialised, train them before use.",
                source,
                enumerate_names(list(self.missing)),
                kind,
            )
        if self.mismatched:
            logger.warning(
                "%s has weights of other shapes for %s of %s: newly initialised, train them before use.",
                source,
                enumerate_names([name for name, _, _ in self.mismatched]),
                kind,
            )
        if self.unexpected:
            logger.warning(
                "%s holds weights that %s has no use for: %s.",
                source,
                kind,
                enumerate_names(list(self.unexpected)),
            )


@dataclass(frozen=True)
class Target:
    """Where weights go, and of which floating type they are there."""

    device: torch.device
    dtype: torch.dtype


def load_weights(
    model: Wav2Vec2BertPreTrainedModel,
    stored: Mapping[str, StoredTensor],
    target: Target,
    *,
    backbone: Wav2Vec2BertPreTrainedModel | None = None,
    ignore_mismatched_sizes: bool = False,
    complete: bool = False,
) -> Match:
    """Give a model without memory its weights; what the checkpoint lacks is initialised.

    Args:
        stored: the checkpoint's tensors, under the names of a task model or of a bare encoder.
        backbone: a loaded encoder to take as the model's own: then only the head is read.
        complete: initialise nothing but what only training reads.

    Raises:
        CheckpointError: nothing of the checkpoint belongs to the model, weights of other shapes or types, or
            too few of them.
    """
    expected = model.state_dict()
    if backbone is None:
        stored = _rename(model.base_model_prefix, stored, expected)
    else:
        prefix = model.base_model_prefix + "."
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(prefix)}
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
    match = Match.of(stored, expected)
    _check(model, match, stored, expected, ignore_mismatched_sizes)
    absent = [name for name in match.missing if model.training_only.isdisjoint(name.split("."))]
    if complete and absent:
        raise MissingWeightsError(model.name_or_path, absent)

    # Drawn first: initialising a tensor that is still without memory does nothing and costs nothing.
    _materialise(model, set(expected) - match.fitting, target)
    with NoDrawsWithoutMemory():
        model.init_weights()
    weights = {
        name: _cast(stored[name].read().to(target.device), target.dtype) for name in sorted(match.fitting)
    }
    model.load_state_dict(weights, strict=False, assign=True)
    if backbone is not None:
        setattr(model, model.base_model_prefix, backbone)
    match.log(model)
    return match


def _rename(
    base_prefix: str, stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]
) -> Mapping[str, StoredTensor]:
    """Names of a bare encoder for a task model, and the other way round."""
    prefix = base_prefix + "."
    has_prefix = any(name.startswith(prefix) for name in stored)
    wants_prefix = any(name.startswith(prefix) for name in expected)
    if has_prefix and not wants_prefix:
        return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    if wants_prefix and not has_prefix:
        return {name if name in expected else prefix + name: tensor for name, tensor in stored.items()}
    return stored


def _check(
    model: Wav2Vec2BertPreTrainedModel,
    match: Match,
    stored: Mapping[str, StoredTensor],
    expected: Mapping[str, Tensor],
    ignore_mismatched_sizes: bool,
) -> None:
    source, kind = model.name_or_path, type(model).__name__
    if stored and not match.fitting and not match.mismatched:
        raise CheckpointError(
            f"{source}: none of its weights belongs to {kind}; it holds "
            f"{enumerate_names(list(stored), limit=5)}"
        )
    if match.mismatched and not ignore_mismatched_sizes:
        shapes = [
            f"{name} is {stored_shape}, should be {shape}" for name, stored_shape, shape in match.mismatched
        ]
        raise CheckpointError(
            f"{source} does not fit the configuration (config.json) of {kind}: {enumerate_names(shapes)}. "
            "Correct the configuration, or pass ignore_mismatched_sizes=True to initialise these at random."
        )
    if strange := [
        f"{name} ({stored[name].dtype})"
        for name in match.fitting
        if stored[name].dtype.is_floating_point != expected[name].is_floating_point()
    ]:
        raise CheckpointError(f"{source} holds weights of other types: {enumerate_names(strange)}")
    new = expected.keys() - match.fitting
    count = sum(expected[name].numel() for name in new)
    if count > max(_MANY_PARAMETERS, 2 * sum(math.prod(tensor.shape) for tensor in stored.values())):
        raise CheckpointError(
            f"{source}: its configuration (config.json) asks for {count:,} parameters that it does not hold, "
            f"too many to initialise: {enumerate_names(list(new), limit=5)}"
        )


class NoDrawsWithoutMemory(TorchFunctionMode):
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


def target_device(device: Any) -> torch.device:
    if isinstance(device, Mapping):
        if list(device) != [""]:
            raise ValueError(f"device_map should name one device for the whole model, got {dict(device)}")
        device = device[""]
    if device in ("auto", "balanced", "balanced_low_0", "sequential"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    target = torch.get_default_device() if device is None else torch.device(device)
    if target.type == "meta":
        raise RuntimeError(
            "You are using `from_pretrained` with a meta device context manager, where weights have no "
            "memory: leave the context, or build the model from its configuration"
        )
    return target


def float_dtype(
    dtype: torch.dtype | str | None, config: Wav2Vec2BertConfig, stored: Mapping[str, StoredTensor]
) -> torch.dtype:
    if dtype is None or dtype == "auto":
        dtype = config.dtype
    if dtype is None:
        return next((t.dtype for t in stored.values() if t.dtype.is_floating_point), torch.float32)
    found = _FLOATS.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found is None or found not in _FLOATS.values():
        raise ConfigError("dtype", f"must be a floating type ({', '.join(_FLOATS)}), is {shown(dtype)}")
    return found


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _materialise(model: nn.Module, names: set[str], target: Target) -> None:
    """Give memory to the named parameters and to all buffers that no checkpoint holds."""

    def allocate(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return torch.zeros_like(tensor, device=target.device)
        # NaN shows at once where an initialisation is forgotten.
        return torch.full_like(tensor, torch.nan, device=target.device, dtype=target.dtype)

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
