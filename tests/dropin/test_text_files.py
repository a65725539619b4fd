"""Files of tokenizers as published code writes and reads them, and the arguments of doing so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import Wav2Vec2CTCTokenizer as Peer

from pipeline.node_files import CheckpointFiles
from pipeline.tasks.transcribe import TASK
from tests.dropin.text_peers import VOCAB, both
from w2vbert import Wav2Vec2CTCTokenizer

SWITCHES = {"add_bos_token": True, "add_eos_token": False, "add_prefix_space": None}
# As transformers 4 wrote it: what is added, and which of it is special, stands in three files.
OLDER = {
    "tokenizer_config.json": {**SWITCHES, "pad_token": {"content": "<pad>", "__type": "AddedToken"}},
    "special_tokens_map.json": {"eos_token": {"content": "</s>", "lstrip": False}, "unk_token": "<unk>"},
    "added_tokens.json": {"True": 13, "</n>": 14},
}


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("files", [{"tokenizer_config.json": SWITCHES}, OLDER])
def test_switches_are_no_tokens(tmp_path: Path, files: dict[str, Any]) -> None:
    """Older checkpoints have `add_bos_token` in the tokenizer's file; the jobs load them too."""
    folder = write(tmp_path / "checkpoint", **{"vocab.json": VOCAB, **files})
    ours, peer = Wav2Vec2CTCTokenizer.from_pretrained(folder), Peer.from_pretrained(folder)
    for text in ("E TA", "E</n>TTrue"):
        assert ours(text).data == peer(text).data
    assert ours.get_vocab() == peer.get_vocab()
    assert ours.all_special_tokens == peer.all_special_tokens
    if "added_tokens.json" in files:
        assert [ours.added_tokens_decoder[index].special for index in (13, 14)] == [False, False]
    ours.save_pretrained(tmp_path / "saved")
    for again in (Peer, Wav2Vec2CTCTokenizer):
        tokenizer = again.from_pretrained(tmp_path / "saved")
        assert tokenizer("E TA").data == peer("E TA").data
        assert tokenizer.get_vocab() == peer.get_vocab()
    content = {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in folder.iterdir()}
    content["preprocessor_config.json"] = np.frombuffer(b"{}", np.uint8)
    assert TASK.check(CheckpointFiles("switches", "0" * 16, content), None) is None


def test_arguments_of_saving(tmp_path: Path) -> None:
    ours, peer = both()
    for tokenizer in (ours, peer):
        tokenizer.add_tokens([AddedToken("[N]", rstrip=True)])
    nothing = {"token": None, "variant": None, "state_dict": None, "is_main_process": True}
    written = ours.save_pretrained(tmp_path / "ours", None, "first", **nothing)
    peer.save_pretrained(tmp_path / "peer", filename_prefix="first")
    names = {"first-added_tokens.json", "first-tokenizer_config.json", "first-vocab.json"}
    assert (
        {Path(path).name for path in written}
        == {path.name for path in (tmp_path / "ours").iterdir()}
        == names
    )
    assert {path.name for path in (tmp_path / "peer").iterdir()} == names
    for name in ("first-added_tokens.json", "first-vocab.json"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "peer" / name).read_text()
    found, expected = (
        json.loads((tmp_path / side / "first-tokenizer_config.json").read_text()) for side in ("ours", "peer")
    )
    assert found["added_tokens_decoder"] == expected["added_tokens_decoder"]
    with pytest.raises(ValueError, match="legacy_format=False"):
        ours.save_pretrained(tmp_path, False)
    with pytest.raises(TypeError, match=r"save_pretrained\(state_dict=\{\}\): that is for models"):
        ours.save_pretrained(tmp_path, state_dict={})
    with pytest.raises(TypeError, match="unexpected keyword argument 'prefix'"):
        ours.save_pretrained(tmp_path, prefix="x")


def test_arguments_of_loading(tmp_path: Path) -> None:
    ours, _ = both(split_special_tokens=True, do_lower_case=True)
    ours.save_pretrained(tmp_path / "nested")
    for kind in (Wav2Vec2CTCTokenizer, Peer):
        again = kind.from_pretrained(
            tmp_path, subfolder="nested", padding_side="left", use_fast=True, trust_remote_code=False
        )
        assert (again.padding_side, again.split_special_tokens, again.do_lower_case) == ("left", True, True)
    again = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "nested", force_download=False, device_map=None)
    assert again.init_kwargs == ours.init_kwargs
    assert again.name_or_path == str(tmp_path / "nested")
    with pytest.raises(TypeError, match=r"from_pretrained\(device_map='auto'\): that is for models"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "nested", device_map="auto")
    with pytest.raises(ValueError, match="no support for GGUF"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "nested", gguf_file="x.gguf")
    with pytest.raises(AttributeError, match="add_special_tokens: conflicts with the method"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "nested", add_special_tokens=True)
    (tmp_path / "nested" / "tokenizer_config.json").write_text('{"get_vocab": 1}')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: get_vocab: conflicts"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "nested")


def test_signature_is_kept() -> None:
    ours, peer = both(do_lower_case=True, cls_token="E")
    assert ours.init_kwargs["cls_token"] == "E"
    named = {name: ours.init_kwargs[name] for name in peer.init_kwargs if name in ours.init_kwargs}
    assert named == {name: peer.init_kwargs[name] for name in named}
    assert {"bos_token", "pad_token", "do_lower_case", "word_delimiter_token", "target_lang"} <= named.keys()


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ours, _ = both()
    with pytest.raises(ConnectionError, match="'owner/name' was not uploaded"):
        ours.push_to_hub("owner/name", private=True, token="none")
    with pytest.raises(ConnectionError, match="'folder' was not uploaded"):
        ours.save_pretrained(tmp_path / "folder", push_to_hub=True)
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "folder").get_vocab() == ours.get_vocab()
    with pytest.raises(TypeError, match="no argument 'colour'"):
        ours.push_to_hub("owner/name", colour="red")
