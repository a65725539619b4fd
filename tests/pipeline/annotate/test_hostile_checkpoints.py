"""Checkpoints of others: whatever they say, a job takes them or tells what is wrong, in little memory."""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.annotate.checkpoints import read_backbones
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks import TASKS
from tests.conftest import ROOT
from w2vbert.config import ConfigError, Wav2Vec2BertConfig

DEMO = ROOT / "demo" / "checkpoint"
SETTINGS = {file.name: json.loads(file.read_text("utf-8")) for file in DEMO.glob("*.json")}
ROOM = 400 << 20  # bytes that a checkpoint of a few MB may take
NESTED: Any = []
for _ in range(900):
    NESTED = [NESTED]
HOSTILE: list[Any] = [
    *(None, True, 0, 1, -1, 7, 10**5, 10**9, 10**11, 10**400, -(10**9), 0.5, float("inf"), float("nan")),
    *("", "7", "\ud800", "x" * 10**5, [], [10**9] * 3, {}, {"content": 7}, {"0": None}, NESTED),
]


@pytest.fixture(scope="module", autouse=True)
def little_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What asks for more than `ROOM` is refused by the system, and fails."""
    read_backbones({"transcribe": str(DEMO)}, {"transcribe": "--model"}, TASKS, Storage(StorageOptions()))
    status = Path("/proc/self/status")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tmp")))
        if status.exists():
            (used,) = (int(line.split()[1]) << 10 for line in status.open() if line.startswith("VmData:"))
            resource.setrlimit(resource.RLIMIT_DATA, (used + ROOM, before[1]))
        yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's checkpoint; its vocabulary has an id for each of the three kinds of files."""
    return Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("hostile") / "model"))


def refusal(model: Path) -> str | None:
    """What a job says of the checkpoint; None where it takes it."""
    try:
        read_backbones(
            {"transcribe": str(model)}, {"transcribe": "--model"}, TASKS, Storage(StorageOptions())
        )
    except JobError as problem:
        said = str(problem)
        said.encode("utf-8", "backslashreplace")
        assert said.startswith(f"--model {model}"), said[:500]
        assert str(tempfile.gettempdir()) not in said.replace(str(model), "")
        # A name of an exception would be one that nobody foresaw.
        assert "Error: " not in said.replace("UnicodeError", ""), said[:500]
        assert len(said) < 3000, "for a person"
        return said
    return None


def with_settings(model: Path, file: str, content: Any) -> None:
    for name, original in SETTINGS.items():
        text = json.dumps(content if name == file else original)
        (model / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("field", [field.name for field in fields(Wav2Vec2BertConfig)])
def test_a_configuration_is_made_or_its_field_named(field: str) -> None:
    for value in HOSTILE[:-1]:  # only a file can be nested too deeply, and is refused as such
        refused: ConfigError | None = None
        try:
            Wav2Vec2BertConfig.from_dict({**SETTINGS["config.json"], field: value}).to_json_string()
        except ConfigError as problem:
            refused = problem
        assert refused is None or related(field, refused.field), (value, refused)


def related(changed: str, named: str) -> bool:
    """Rules on several fields name one of them."""
    pairs = {
        "num_attention_heads": "hidden_size",
        "num_adapter_layers": "adapter_stride",
        "hidden_size": "position_embeddings_type",
        "use_intermediate_ffn_before_adapter": "add_adapter",
        "label2id": "id2label",
        **dict.fromkeys(("tdnn_kernel", "tdnn_dilation"), "tdnn_dim"),
    }
    return pairs.get(changed) == named or named.startswith(changed)


FILES: dict[str, tuple[Any, str]] = {
    "layers": (
        {"num_hidden_layers": 10**5},
        "num_hidden_layers: must be a whole number from 0 to 128, is 100000",
    ),
    "width": ({"hidden_size": 10**9}, "hidden_size: must be a whole number from 1 to 16384, is 1000000000"),
    "kernel": ({"conv_depthwise_kernel_size": 10**9 + 1}, "conv_depthwise_kernel_size: must be"),
    "vocabulary": ({"vocab_size": 10**11}, "vocab_size: must be"),
    "labels": ({"num_labels": 10**9, "id2label": None, "label2id": None}, "num_labels: must be"),
    "blank": ({"pad_token_id": 10**11}, "pad_token_id: must be"),
    "blank as text": ({"pad_token_id": "0"}, "pad_token_id: must be"),
    "adapters": (
        {"add_adapter": True, "num_adapter_layers": 100},
        "adapter_stride ** num_adapter_layers: must",
    ),
    "adapter": (
        {"add_adapter": True, "num_adapter_layers": 6, "adapter_kernel_size": 1023},
        "config.json) asks for 22",
    ),
    "switch as text": ({"add_adapter": "no"}, "add_adapter: must be true or false, is 'no'"),
    "a method": ({"validate": 1}, "validate: is no field"),
    "a property": ({"head_size": 1}, "head_size: is no field"),
    "dtype": ({"dtype": "int8"}, "dtype: must be"),
    "label": ({"id2label": {"0": 1, "1": "x"}}, "id2label: must be text, is 1"),
    "label by name": ({"id2label": {"x": "y"}}, "id2label: must number"),
    "architecture": ({"architectures": [7]}, "architectures: must be text"),
}


@pytest.mark.parametrize("name", FILES)
def test_absurd_models_are_refused_by_field_and_number(model: Path, name: str) -> None:
    changed, said = FILES[name]
    with_settings(model, "config.json", SETTINGS["config.json"] | changed)
    refused = refusal(model)
    assert refused is not None
    assert "config.json" in refused
    assert said in refused


FEATURES: list[tuple[dict[str, Any], str]] = [
    ({"num_mel_bins": 10**9}, "num_mel_bins: must be a whole number from 1 to 1024, is 1000000000"),
    ({"sampling_rate": 10**12}, "sampling_rate: must be"),
    ({"sampling_rate": "16000"}, "sampling_rate: must be"),
    ({"stride": 0}, "stride: must be"),
    ({"feature_size": None}, "feature_size: must be"),
    ({"padding_value": float("nan")}, "padding_value: must be a number"),
    ({"padding_side": ["right"]}, "padding_side: must be"),
    ({"feature_extractor_type": {}}, "feature_extractor_type"),
]


@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(("changed", "said"), FEATURES)
def test_absurd_features_are_refused_by_field(model: Path, file: str, changed: dict, said: str) -> None:
    features = SETTINGS["preprocessor_config.json"] | changed
    with_settings(model, file, features)
    nested = model / "processor_config.json"
    if file == nested.name:
        nested.write_text(json.dumps({"feature_extractor": features}))
    try:
        refused = refusal(model)
    finally:
        nested.unlink(missing_ok=True)
    assert refused is not None
    assert f"{file}: {said}" in refused


TOKENS: list[tuple[str, dict[str, Any], str]] = [
    ("vocab.json", {"a": -1}, "the id of 'a': must be a whole number from 0 to 262143, is -1"),
    ("vocab.json", {"a": 10**11}, "the id of 'a': must be"),
    ("vocab.json", {"a": 0}, "the id of"),
    ("vocab.json", {"a": True}, "the id of 'a': must be"),
    ("vocab.json", {"a": "7"}, "the id of 'a': must be"),
    ("vocab.json", {"\ud800": 30}, r"the id of '\ud800': must be valid Unicode"),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"100000000000": {"content": "x"}}},
        "added_tokens_decoder",
    ),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"x": {"content": "x"}}},
        "added_tokens_decoder: must be",
    ),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"1": "x"}},
        "added_tokens_decoder.1: must be an object",
    ),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"1": {"content": 7}}},
        "added_tokens_decoder.1.content",
    ),
    ("tokenizer_config.json", {"added_tokens_decoder": []}, "added_tokens_decoder: must be an object"),
    ("tokenizer_config.json", {"pad_token": 7}, "pad_token: must be a token"),
    ("tokenizer_config.json", {"extra_special_tokens": 7}, "extra_special_tokens: must be"),
    ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length: must be"),
    ("tokenizer_config.json", {"do_lower_case": "no"}, "do_lower_case: must be"),
    ("tokenizer_config.json", {"replace_word_delimiter_char": None}, "replace_word_delimiter_char: must be"),
    ("tokenizer_config.json", {"padding_side": None}, "padding_side: must be"),
]


@pytest.mark.parametrize(("file", "changed", "said"), TOKENS)
def test_absurd_tokens_are_refused_by_field(model: Path, file: str, changed: dict, said: str) -> None:
    with_settings(model, file, SETTINGS[file] | changed)
    refused = refusal(model)
    assert refused is not None
    assert f"{file}: {said}" in refused


TEXTS: dict[str, bytes] = {
    "nested": b"[" * 10**5 + b"]" * 10**5,
    "deep": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "no object": b"[]",
    "null": b"null",
    "nothing": b"",
    "half": b'{"a": ',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "long number": b'{"a": ' + b"9" * 10**5 + b"}",
    "large": b'{"a": [' + b"[]," * (3 << 20) + b"[]]}",
    "gigabytes": b"",
}


@pytest.mark.slow
@pytest.mark.parametrize("file", SETTINGS)
@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_json_object_is_refused_by_file(model: Path, file: str, name: str) -> None:
    with_settings(model, "", None)
    (model / file).write_bytes(TEXTS[name])
    if name == "gigabytes":
        with (model / file).open("r+b") as sparse:
            sparse.truncate(8 << 30)
    refused = refusal(model)
    assert refused is not None
    assert file in refused


def test_a_byte_order_mark_is_no_reason(model: Path) -> None:
    with_settings(model, "", None)
    for file in SETTINGS:
        (model / file).write_bytes(b"\xef\xbb\xbf" + (model / file).read_bytes())
    assert refusal(model) is None


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from places(value, (*path, key))


def changed_at(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    content = content.copy()
    content[path[0]] = changed_at(content[path[0]], path[1:], value)
    return content


PLACES = [(file, path) for file, content in SETTINGS.items() for path in places(content)]


@pytest.mark.slow
@settings(max_examples=80, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=st.sampled_from(HOSTILE) | st.integers() | st.text())
def test_any_value_at_any_place(model: Path, place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    file, path = place
    with_settings(model, file, changed_at(SETTINGS[file], path, value))
    refused = refusal(model)
    assert refused is None or file in refused or any(str(key) in refused for key in path), refused


def test_a_place_that_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "config.json")

    with_settings(model, "", None)
    monkeypatch.setattr("numpy.memmap", refuse)
    with pytest.raises(JobError, match=r"^--model \[Errno 13\] Permission denied: 'config.json'"):
        read_backbones(
            {"transcribe": str(model)}, {"transcribe": "--model"}, TASKS, Storage(StorageOptions())
        )


def test_a_home_of_nobody_is_no_place() -> None:
    with pytest.raises(JobError, match=r"~nobody-here/x: no such directory"):
        read_backbones(
            {"transcribe": "~nobody-here/x"}, {"transcribe": "--model"}, TASKS, Storage(StorageOptions())
        )
