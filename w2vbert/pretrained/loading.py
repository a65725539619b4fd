"""Weights of a checkpoint into a model that was built without memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from w2vbert.pretrained.weights import CheckpointError, StoredTensor, enumerate_names

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.pretrained.model import PreTrainedModel

logger = logging.getLogger(__name__)


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

    def log(self, model: PreTrainedModel) -> None:
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
    model: PreTrainedModel,
    stored: Mapping[str, StoredTensor],
    target: Target,
    *,
    backbone: PreTrainedModel | None = None,
    ignore_mismatched_sizes: bool = False,
) -> Match:
    """Give a model without memory its weights; what the checkpoint lacks is initialised.

    Args:
        stored: the checkpoint's tensors, under the names of a task model or of a bare encoder.
        backbone: a loaded encoder to take as the model's own: then only the head is read.

    Raises:
        CheckpointError: nothing of the checkpoint belongs to the model, or weights of other shapes.
    """
    expected = model.state_dict()
    if backbone is None:
        stored = _rename(model.base_model_prefix, stored, expected)
    else:
        prefix = model.base_model_prefix + "."
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(prefix)}
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
    match = Match.of(stored, expected)
    _check(model, match, stored, ignore_mismatched_sizes)

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
    model: PreTrainedModel,
    match: Match,
    stored: Mapping[str, StoredTensor],
    ignore_mismatched_sizes: bool,
) -> None:
    if not match.fitting and not match.mismatched:
        raise CheckpointError(
            f"{model.name_or_path}: none of its weights belongs to {type(model).__name__}; it holds "
            f"{enumerate_names(list(stored), limit=5)}"
        )
    if match.mismatched and not ignore_mismatched_sizes:
        shapes = "; ".join(
            f"{name} is {stored_shape}, should be {shape}"
            for name, stored_shape, shape in sorted(match.mismatched)
        )
        raise CheckpointError(
            f"{model.name_or_path} does not fit the configuration of {type(model).__name__}: {shapes}. "
            "Correct the configuration, or pass ignore_mismatched_sizes=True to initialise these at random."
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
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cpu" if device is None else device)


def float_dtype(
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
