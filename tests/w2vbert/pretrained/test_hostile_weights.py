"""Weights of others: indexes that lead elsewhere, headers that lie, pickles of more than tensors."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.w2vbert.heads.test_heads import build
from tests.w2vbert.pretrained.checkpoints import assert_same, weights
from w2vbert.fields import ConfigError
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.pretrained.hub import CheckpointNotFoundError
from w2vbert.pretrained.weights import CheckpointError, MissingWeightsError, open_weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path / "model", max_shard_size="10KB")
    return tmp_path / "model"


def load(place: Path) -> Wav2Vec2BertForCTC:
    return Wav2Vec2BertForCTC.from_pretrained(place)


OUTSIDE = ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "file:///etc/passwd"]
OUTSIDE += ["https://host/x.safetensors", "..\\other.safetensors", "x\0.safetensors", "a" * 300]


@pytest.mark.slow
@pytest.mark.parametrize("filename", [*OUTSIDE, 7, None, ["model.safetensors"], {}])
@pytest.mark.parametrize("all_of_it", [True, False])
def test_an_index_names_files_beside_it(sharded: Path, filename: Any, all_of_it: bool) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in weights(load(sharded)).items()}
    save_file(tensors, sharded.parent / "other.safetensors")
    (sharded / "sub").mkdir()
    save_file(tensors, sharded / "sub" / "x.safetensors")
    index = json.loads((sharded / INDEX).read_text())
    names = list(index["weight_map"])
    index["weight_map"] |= dict.fromkeys(names if all_of_it else names[:1], filename)
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"index\.json: weight_map: .* must be in a file beside the index"
    ):
        load(sharded)


@pytest.mark.parametrize("content", [{}, {"weight_map": None}, {"weight_map": ["x"]}, {"weight_map": "x"}])
def test_an_index_without_a_map(sharded: Path, content: dict[str, Any]) -> None:
    (sharded / INDEX).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="weight_map"):
        load(sharded)


def test_an_index_that_is_no_json(sharded: Path) -> None:
    (sharded / INDEX).write_bytes(b"[" * 10**5)
    with pytest.raises(ConfigError, match=r"index\.json: is not valid JSON"):
        load(sharded)


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    """Its snapshots hold links into a folder beside them."""
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path / "made", max_shard_size="10KB")
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted((tmp_path / "made").iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs", str(number)))
    assert_same(weights(load(snapshot)), weights(build(Wav2Vec2BertForCTC)))


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_header(path: Path, header: Any, body: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + body)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    build(Wav2Vec2BertForCTC).save_pretrained(tmp_path)
    return tmp_path


HEAD = "lm_head.weight"
LIES: dict[str, dict[str, Any]] = {
    "overlap": {"data_offsets": [0, 384]},
    "beyond the end": {"data_offsets": [10**9, 10**9 + 384]},
    "negative": {"data_offsets": [-384, 0]},
    "backwards": {"data_offsets": [384, 0]},
    "larger than it is": {"shape": [10**9, 10**9]},
    "overflow": {"shape": [2**63, 2**63]},
    "shape of text": {"shape": ["6", "16"]},
    "no such type": {"dtype": "F31"},
    "another type of the size": {"dtype": "I32"},
    "a type that nobody has": {"dtype": "U32"},
    "half the size": {"dtype": "F16"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(whole: Path, lie: str) -> None:
    path = whole / "model.safetensors"
    header, body = header_of(path)
    header[HEAD] |= LIES[lie]
    write_header(path, header, body)
    with pytest.raises(CheckpointError, match=r"damaged|holds weights of other types|not supported"):
        load(whole)


@pytest.mark.parametrize("size", [0, 7, 10**6, 8 << 20, 10**9, 2**63, 2**64 - 1])
def test_a_header_of_another_size(whole: Path, size: int) -> None:
    path = whole / "model.safetensors"
    write_header(path, *header_of(path), size=size)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(whole)


def test_a_header_of_gigabytes_is_not_read(whole: Path) -> None:
    path = whole / "model.safetensors"
    path.write_bytes((90 << 20).to_bytes(8, "little") + b"{")
    os.truncate(path, 100 << 20)
    with pytest.raises(CheckpointError, match="its header has 94,371,840 bytes"):
        load(whole)


@pytest.mark.slow
@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_a_header(whole: Path, data: st.DataObject) -> None:
    path = whole / "model.safetensors"
    original = path.read_bytes()
    end = 8 + int.from_bytes(original[:8], "little")
    place = data.draw(st.integers(0, end - 1))
    damaged = bytearray(original)
    damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        load(whole)
    except (CheckpointError, CheckpointNotFoundError):
        pass
    finally:
        path.write_bytes(original)


class Bomb:
    """Unpickles as what it was made with does."""

    def __init__(self, make: Any, *arguments: Any) -> None:
        self._reduced = make, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def pickles() -> dict[str, Any]:
    vast = torch.zeros(1).expand(10**12)
    return {
        "a number repeated": {HEAD: vast, "lm_head.bias": torch.zeros(6)},
        "all alike": {f"x{n}": torch.zeros(10**6) for n in range(1)} | {"y": torch.zeros(1).expand(10**7)},
        "sparse": {HEAD: torch.zeros(6, 16).to_sparse()},
        "without memory": {HEAD: torch.zeros(6, 16, device="meta")},
        "no names": {7: torch.zeros(6)},
        "no tensors": {HEAD: [0.0]},
        "a list": [torch.zeros(6)],
        "code": {HEAD: Bomb(os.system, "touch harmed")},
        "a file": {HEAD: Bomb(open, "harmed", "w")},
    }


@pytest.mark.parametrize("name", pickles())
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_hold_tensors_and_nothing_else(
    whole: Path, name: str, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole)
    (whole / "model.safetensors").unlink()
    content = pickles()[name]
    torch.save(content, whole / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load(whole)
    assert not (whole / "harmed").exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": bytearray(8)}),
        b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x01\x00\x85R.",
        b"\x80\x02" + b"(" * 10**5 + b".",
        b"\x80\x02.",
        b"PK\x03\x04",
    ],
)
def test_what_is_hardly_a_pickle(whole: Path, content: bytes) -> None:
    (whole / "model.safetensors").unlink()
    (whole / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load(whole)


@pytest.mark.slow
def test_a_compressed_archive_is_not_unpacked(whole: Path) -> None:
    path = whole / "pytorch_model.bin"
    torch.save(weights(load(whole)), path)
    (whole / "model.safetensors").unlink()
    load(whole)
    with zipfile.ZipFile(path) as stored:
        parts = {entry.filename: stored.read(entry) for entry in stored.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for part, data in parts.items():
            packed.writestr(part, data + (bytes(1 << 28) if part.endswith("data.pkl") else b""))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match="it is compressed, as weights never are"):
        load(whole)


def test_the_rest_of_a_model_that_hardly_exists_is_not_made_up(whole: Path) -> None:
    fields = json.loads((whole / "config.json").read_text())
    adapter = {"add_adapter": True, "num_adapter_layers": 6, "adapter_kernel_size": 1023, "hidden_size": 16}
    (whole / "config.json").write_text(json.dumps(fields | adapter | {"output_hidden_size": 1024}))
    (whole / "model.safetensors").unlink()
    save_file({"wav2vec2_bert.masked_spec_embed": torch.zeros(16)}, whole / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"\(config\.json\) asks for [\d,]{11,} parameters"):
        load(whole)


def test_a_complete_checkpoint_may_be_asked_for(whole: Path) -> None:
    assert not Wav2Vec2BertForCTC.from_pretrained(whole, complete=True).training
    tensors = {name: tensor.contiguous() for name, tensor in weights(load(whole)).items()}
    del tensors["lm_head.bias"]
    save_file(tensors, whole / "model.safetensors")
    with pytest.raises(MissingWeightsError, match=r"has no weights for lm_head\.bias$") as caught:
        Wav2Vec2BertForCTC.from_pretrained(whole, complete=True)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.names, str(again)) == (["lm_head.bias"], str(caught.value))
    assert load(whole).lm_head.bias.isfinite().all()


def test_weights_that_are_no_file(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    (whole / "model.safetensors").mkdir()
    os.mkfifo(whole / "pytorch_model.bin")
    with pytest.raises(CheckpointNotFoundError, match="no weights"):
        open_weights(lambda name: (whole / name) if (whole / name).is_file() else None)
    with pytest.raises(CheckpointNotFoundError, match="no weights"):
        load(whole)


def test_a_head_of_no_shape_tells_no_vocabulary(whole: Path) -> None:
    fields = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(fields | {"vocab_size": None}))
    tensors = {name: tensor.contiguous() for name, tensor in weights(load(whole)).items()}
    scalar = {"lm_head.weight": torch.tensor(1.0), "lm_head.bias": torch.tensor(1.0)}
    save_file(tensors | scalar, whole / "model.safetensors")
    with pytest.raises(ConfigError, match=r"config\.json: vocab_size: is not set"):
        load(whole)
    (whole / "config.json").write_text(json.dumps(fields))
    save_file(tensors, whole / "model.safetensors")
    save_file(scalar, whole / "adapter.fra.safetensors")
    with pytest.raises(
        CheckpointError, match=r"adapter\.fra\.safetensors does not fit the model: lm_head\.bias"
    ):
        load(whole).load_adapter("fra")
