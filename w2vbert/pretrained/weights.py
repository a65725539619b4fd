"""Named tensors on disk: safetensors and `pytorch_model.bin`, whole or in shards."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from w2vbert.fields import enumerate_names, shown
from w2vbert.pretrained.hub import MAX_JSON_BYTES, CheckpointNotFoundError, read_json

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX = ".index.json"

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_SHARD = re.compile(r"[^./\\\0][^/\\\0]{0,200}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)


class CheckpointError(RuntimeError):
    """A checkpoint is there but cannot be used: a damaged file, or weights that do not fit the model."""


class MissingWeightsError(CheckpointError):
    """A checkpoint lacks weights that its model was to have; `names` are theirs."""

    def __init__(self, place: str, names: list[str]) -> None:
        super().__init__(place, names)
        self.place, self.names = place, names

    def __str__(self) -> str:
        return f"{self.place} has no weights for {enumerate_names(self.names)}"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: what it is, and how to read it when it is wanted."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def open_weights(
    find: Callable[[str], Path | None],
    *,
    device: torch.device | str = "cpu",
    use_safetensors: bool | None = None,
    variant: str | None = None,
) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by name, none of them read yet.

    Files are mapped rather than read, so a tensor takes memory once, where it ends up.

    Args:
        find: gives the local path of a file of the checkpoint, `None` where there is no such file.
        device: where safetensors are read to (a pickle is always read to the CPU).
        use_safetensors: `True` or `False` admits only that format; both, safetensors first, when omitted.
        variant: of the files, as in `model.<variant>.safetensors`.

    Raises:
        CheckpointNotFoundError: no weights, or a shard is missing.
        CheckpointError: a file is damaged, or a pickle holds more than tensors.
    """
    formats: list[tuple[str, Callable[[Path], dict[str, StoredTensor]]]] = []
    if use_safetensors is not False:
        formats.append((SAFETENSORS, lambda path: open_safetensors(path, device)))
    if use_safetensors is not True:
        formats.append((PICKLE, _open_pickle))
    for filename, open_file in formats:
        if (path := find(of_variant(filename, variant))) is not None:
            return open_file(path)
        if (index := find(of_variant(filename + INDEX, variant))) is not None:
            return _open_shards(index, find, open_file)
    names = " or ".join(of_variant(filename, variant) for filename, _ in formats)
    raise CheckpointNotFoundError(f"the checkpoint has no weights ({names}, whole or sharded)")


def of_variant(filename: str, variant: str | None) -> str:
    """The published name of a file of a variant: `model.fp16.safetensors`."""
    stem, _, ending = filename.rpartition(".")
    return filename if variant is None else f"{stem}.{variant}.{ending}"


def weights_of(state_dict: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    """Tensors in memory as if they were in a file: each is copied when it is read."""
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor.detach().clone())  # type: ignore[misc]
        for name, tensor in state_dict.items()
    }


def _open_shards(
    index: Path,
    find: Callable[[str], Path | None],
    open_file: Callable[[Path], dict[str, StoredTensor]],
) -> dict[str, StoredTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no 'weight_map' from tensor names to files")
    for name, filename in weight_map.items():
        # Plain names alone: nothing else can lead out of the checkpoint. What is a link is the file system's.
        if not isinstance(filename, str) or not _SHARD.fullmatch(filename):
            raise CheckpointError(
                f"{index}: weight_map: {shown(name)} must be in a file beside the index, is {shown(filename)}"
            )
    shards: dict[str, dict[str, StoredTensor]] = {}
    for filename in sorted(set(weight_map.values())):
        path = find(filename)
        if path is None:
            raise CheckpointNotFoundError(f"{index} names the shard {filename}, which is missing")
        shards[filename] = open_file(path)
    absent = [name for name, filename in weight_map.items() if name not in shards[filename]]
    if absent:
        raise CheckpointError(f"{index}: {weight_map[absent[0]]} should hold {enumerate_names(absent)}")
    return {name: shards[filename][name] for name, filename in weight_map.items()}


def open_safetensors(path: Path, device: torch.device | str) -> dict[str, StoredTensor]:
    """The tensors of one file by name, none of them read yet.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with path.open("rb") as start:
            header_bytes = int.from_bytes(start.read(8), "little")
        if header_bytes > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} is damaged or no safetensors file: its header has {header_bytes:,} bytes"
            )
        file = safe_open(path, framework="pt", device=str(device))
        stored = {}
        for name in file.keys():  # noqa: SIM118 -- not a mapping
            header = file.get_slice(name)
            stored[name] = StoredTensor(
                shape=tuple(header.get_shape()),
                dtype=_SAFETENSORS_DTYPES[header.get_dtype()],
                read=lambda name=name: file.get_tensor(name),  # type: ignore[misc]
            )
    except KeyError as error:
        raise CheckpointError(f"{path}: tensors of type {error} are not supported") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    return stored


def _open_pickle(path: Path) -> dict[str, StoredTensor]:
    """Read by a reader that makes tensors and nothing else; what it makes of damage is of many types."""
    zipped = zipfile.is_zipfile(path)  # files from before torch 1.6 are none, and cannot be mapped
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise CheckpointError(f"{path} is damaged: it is compressed, as weights never are")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and unpickling it could run foreign code; "
            "ask its author for safetensors"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} should hold a dictionary of tensors")
    if any(tensor.layout != torch.strided or tensor.device.type != "cpu" for tensor in content.values()):
        raise CheckpointError(f"{path} should hold plain tensors")
    # Tensors may share memory, but one that repeats few numbers without end is no weight.
    if sum(tensor.nbytes for tensor in content.values()) > 4 * path.stat().st_size:
        raise CheckpointError(f"{path} is damaged: its tensors claim more numbers than it holds")
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
        for name, tensor in content.items()
    }


def save_weights(
    weights: Mapping[str, Tensor],
    directory: str | os.PathLike[str],
    *,
    max_shard_size: int | str = "50GB",
    variant: str | None = None,
) -> None:
    """Write tensors as `model.safetensors`, or as shards with an index where they exceed the size.

    Each file appears under its name only when it is complete, so a model may be saved over the very files
    that it is mapped from. Weights of an earlier save that the new one does not name are removed.

    Args:
        weights: tensors by name, on any device.
        directory: an existing directory.
        max_shard_size: bytes, or a size such as "500MB" or "2GiB". A larger tensor has a shard of its own.
        variant: write `model.<variant>.safetensors`, and leave files without it alone.
    """
    directory = Path(directory)
    limit = _bytes(max_shard_size)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in weights.items():
        if shards[-1] and filled + tensor.nbytes > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes

    single = of_variant(SAFETENSORS, variant)
    stem = single.removesuffix(".safetensors")
    files = (
        [single]
        if len(shards) == 1
        else [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for filename, shard in zip(files, shards, strict=True):
        partial = directory / f".{filename}.partial"
        save_file(_unshared(shard), partial, metadata={"format": "pt"})
        partial.replace(directory / filename)
    index = directory / of_variant(SAFETENSORS + INDEX, variant)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in weights.values())
        weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        index.unlink(missing_ok=True)
    for old in [directory / single, *directory.glob(f"{stem}-[0-9]*-of-[0-9]*.safetensors")]:
        if old.name not in files:
            old.unlink(missing_ok=True)


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own: safetensors refuses any that share it."""
    unshared: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        number = size
    else:
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise ValueError(
                f"max_shard_size should be bytes or a size such as '500MB' or '2GiB', got {size!r}"
            )
        count, unit, binary = match.groups()
        number = int(float(count) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
    if number < 1:
        raise ValueError(f"max_shard_size must be positive, got {size!r}")
    return number
