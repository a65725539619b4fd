"""The dictionary of arrays that the feature extractor and the tokenizer return."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

TensorType = Literal["pt", "np"]


class BatchFeature(UserDict[str, Any]):
    """A mapping whose entries are attributes too, and whose tensors move together: `batch.to("cuda")`.

    Args:
        data: the entries.
        tensor_type: as in `convert_to_tensors`.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: TensorType | None = None) -> None:
        super().__init__(data or {})
        self.convert_to_tensors(tensor_type)

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # not there yet while an instance is being copied or unpickled
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(f"no {name!r} here, only {', '.join(self.data)}") from None

    def convert_to_tensors(self, tensor_type: TensorType | None = None) -> BatchFeature:
        """Make every numeric entry a `torch.Tensor` ("pt") or a `numpy.ndarray` ("np"), in place.

        Raises:
            ValueError: an unknown type, or sequences of different lengths in one entry ("pt"; of "np" they
                make an array of arrays).
        """
        if tensor_type is None:
            return self
        for key, value in self.data.items():
            if not _is_text(value):
                self.data[key] = to_tensor(value, tensor_type, name=key)
        return self

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move tensors as `Tensor.to` does, in place; a dtype is given to floating-point ones only."""
        whole = torch.empty(0, dtype=torch.long).to(*args, **kwargs)
        for key, value in self.data.items():
            if isinstance(value, torch.Tensor):
                only_device = not value.is_floating_point() and whole.is_floating_point()
                self.data[key] = value.to(whole.device) if only_device else value.to(*args, **kwargs)
        return self


class BatchEncoding(BatchFeature):
    """What the tokenizer returns: a `BatchFeature` under its published name and arguments.

    Args:
        encoding: always None here; it is a matter of the `tokenizers` library.
        prepend_batch_axis: the entries are those of one text: put each into a batch of one.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: None = None,
        tensor_type: TensorType | None = None,
        prepend_batch_axis: bool = False,
    ) -> None:
        if prepend_batch_axis and tensor_type is not None:
            data = {key: [value] for key, value in (data or {}).items()}
        super().__init__(data, tensor_type)


def to_tensor(value: Any, tensor_type: TensorType, name: str = "values") -> torch.Tensor | np.ndarray:
    """An array or tensor from nested sequences of numbers, arrays or tensors of one shape.

    Sequences of different lengths make an array of arrays, but no tensor. An empty list holds ids: what is
    measured comes in arrays.
    """
    if tensor_type not in ("pt", "np"):
        raise ValueError(f"return_tensors must be 'pt' or 'np', not {tensor_type!r}")
    is_list = isinstance(value, Sequence)
    if is_list and len(value) and isinstance(value[0], (np.ndarray, torch.Tensor)):
        is_list, value = False, [np.asarray(item) for item in value]
    try:
        array = value if isinstance(value, torch.Tensor) else np.asarray(value)
    except ValueError as error:
        if tensor_type == "np":
            return _ragged(value)
        raise ValueError(
            f"{name}: sequences of different lengths make no tensor; ask for padding=True"
        ) from error
    if is_list and array.size == 0:
        array = array.astype(np.int64)
    if tensor_type == "pt":
        return torch.as_tensor(array)
    return np.asarray(array)


def _ragged(rows: Sequence[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        array[index] = np.asarray(row)
    return array


def _is_text(value: Any) -> bool:
    while isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        value = value[0]
    return isinstance(value, str)
