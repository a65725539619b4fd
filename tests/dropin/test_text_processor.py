"""The processor and its parts among the published ones: each in the other, collators, pipelines, Trainer."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets.fingerprint import Hasher
from transformers import SeamlessM4TFeatureExtractor as PeerExtractor
from transformers import Wav2Vec2BertProcessor as Peer

from tests.dropin.text_peers import VOCAB, both
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertProcessor, Wav2Vec2CTCTokenizer
from w2vbert.config import ConfigError


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def processors(**options: Any) -> tuple[Wav2Vec2BertProcessor, Peer]:
    ours, peer = both(VOCAB, **options)
    return Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), ours), Peer(PeerExtractor(), peer)


def assert_same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        np.testing.assert_allclose(found[name], value, atol=2e-5)


CALL = {"audio": [noise(4000), noise(3000)], "text": ["E TA", "x"], "sampling_rate": 16000}


def test_use_leaves_the_hash_as_it_was() -> None:
    """`datasets` finds what a function made before by the hash of the processor that it uses."""
    for processor in processors():
        before = Hasher.hash(processor)
        processor(**CALL, padding=True)
        processor.batch_decode([[5, 5, 0, 5]])
        assert Hasher.hash(processor) == before


@pytest.mark.parametrize(
    "options",
    [
        {"return_tensors": "pt", "padding": "max_length", "max_length": 60, "return_attention_mask": False},
        {"common_kwargs": {"return_tensors": "np", "padding": True}},
        {
            "common_kwargs": {"return_tensors": "pt", "padding": True},
            "text_kwargs": {"padding": "max_length", "max_length": 7, "padding_side": "left"},
            "audio_kwargs": {"padding": "max_length", "max_length": 40},
        },
    ],
)
def test_structured_arguments(options: dict[str, Any]) -> None:
    ours, peer = processors()
    assert_same(ours(**CALL, **options), peer(**CALL, **options))


def test_arguments_that_the_tokenizer_was_made_with() -> None:
    ours, peer = processors(padding="max_length", max_length=50)
    assert_same(ours(**CALL, return_tensors="pt"), peer(**CALL, return_tensors="pt"))
    assert_same(
        ours(**CALL, return_tensors="pt", padding=True, max_length=None),
        peer(**CALL, return_tensors="pt", padding=True, max_length=None),
    )


def test_subclasses_merge_the_arguments_of_a_call() -> None:
    told = {"padding": True, "common_kwargs": {"return_tensors": "pt"}, "text_kwargs": {"max_length": 3}}
    ours, peer = processors(padding="max_length", max_length=50)
    found, expected = (
        processor._merge_kwargs(
            processor.valid_processor_kwargs, tokenizer_init_kwargs=processor.tokenizer.init_kwargs, **told
        )
        for processor in (ours, peer)
    )
    # What the tokenizer does without being told.
    own = {"padding_side": "right", "split_special_tokens": False}
    assert found["text_kwargs"] == {**own, **expected["text_kwargs"]}
    assert found["audio_kwargs"] == expected["audio_kwargs"]


def test_arguments_that_are_given_twice() -> None:
    for processor in processors():
        with pytest.raises(ValueError, match=r"padding.*(twice|two times)"):
            processor(**CALL, padding=True, text_kwargs={"padding": False})


def test_configurations_exchange(tmp_path: Path) -> None:
    ours, peer = processors()
    assert ours.to_dict() == peer.to_dict() == json.loads(ours.to_json_string())
    assert ours.get_attributes() == peer.get_attributes()
    assert ours.model_input_names == peer.model_input_names
    assert ours.chat_template is peer.chat_template is None
    ours.to_json_file(tmp_path / "ours.json")
    peer.to_json_file(tmp_path / "peer.json")
    assert (tmp_path / "ours.json").read_text() == (tmp_path / "peer.json").read_text()
    ours.save_pretrained(tmp_path / "saved", variant=None)
    options = {"padding_value": 1.0, "cls_token": "(C)", "padding_side": "left"}
    loaded = [kind.from_pretrained(tmp_path / "saved", **options) for kind in (Wav2Vec2BertProcessor, Peer)]
    assert loaded[0].to_dict() == loaded[1].to_dict()
    assert loaded[0].tokenizer.get_vocab() == loaded[1].tokenizer.get_vocab()
    for processor in loaded:
        assert processor.feature_extractor.padding_value == 1.0
        assert processor.tokenizer.padding_side == processor.feature_extractor.padding_side == "left"
        assert processor.tokenizer.cls_token == "(C)"
    # A field of the features is none of the tokenizer's.
    assert "padding_value" not in loaded[0].tokenizer.init_kwargs
    parts = {"feature_extractor": ours.feature_extractor, "tokenizer": ours.tokenizer}
    again = Wav2Vec2BertProcessor.from_pretrained(tmp_path / "saved", **parts)
    assert (again.feature_extractor, again.tokenizer) == (ours.feature_extractor, ours.tokenizer)
    with pytest.raises(TypeError, match=r"from_pretrained\(dtype='float16'\): that is for models"):
        Wav2Vec2BertProcessor.from_pretrained(tmp_path / "saved", dtype="float16")


def test_each_inside_the_other(tmp_path: Path) -> None:
    ours, peer = processors()
    expected = peer(**CALL, padding=True, return_tensors="pt")
    mixed = [
        Peer(ours.feature_extractor, ours.tokenizer),
        Peer(ours.feature_extractor, peer.tokenizer),
        Wav2Vec2BertProcessor(peer.feature_extractor, peer.tokenizer),
        Wav2Vec2BertProcessor(peer.feature_extractor, ours.tokenizer),
    ]
    rows = [{"input_features": torch.ones(2, 160)}, {"input_features": torch.ones(3, 160)}]
    labels = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    for index, processor in enumerate(mixed):
        assert_same(processor(**CALL, padding=True, return_tensors="pt"), expected)
        assert_same(
            processor.pad(rows, labels, return_tensors="pt"), peer.pad(rows, labels, return_tensors="pt")
        )
        assert processor.batch_decode([[5, 5, 4, 6], [7, 0, 7]]) == ["E T", "AA"]
        assert processor.decode([5, 1, 5], True) == "E"
        assert processor.to_dict() == peer.to_dict()
        processor.save_pretrained(tmp_path / str(index))
        for kind in (Peer, Wav2Vec2BertProcessor):
            loaded = kind.from_pretrained(tmp_path / str(index))
            assert_same(loaded(**CALL, padding=True, return_tensors="pt"), expected)


def test_a_part_of_another_kind_is_saved_and_loaded(tmp_path: Path) -> None:
    """It is what `AutoFeatureExtractor` makes for this family; the features of the model it does not make."""
    _, peer = processors()
    for kind in (Wav2Vec2BertProcessor, Peer):
        processor = kind(transformers.Wav2Vec2FeatureExtractor(do_normalize=False), peer.tokenizer)
        processor.save_pretrained(tmp_path / kind.__module__)
        loaded = kind.from_pretrained(tmp_path / kind.__module__, padding_value=2.0, cls_token="(C)")
        assert type(loaded.feature_extractor) is transformers.Wav2Vec2FeatureExtractor
        assert loaded.feature_extractor.padding_value == 2.0
        assert loaded.tokenizer.cls_token == "(C)"
        assert loaded([0.5, 0.25, 1.0], sampling_rate=16000).input_values[0].tolist() == [0.5, 0.25, 1.0]
    with pytest.raises(ConfigError, match="does not use 'Wav2Vec2FeatureExtractor'"):
        SeamlessM4TFeatureExtractor.from_pretrained(tmp_path / Peer.__module__)


def test_what_they_pass_for() -> None:
    ours, _ = processors()
    parts = {
        ours.tokenizer: (transformers.PreTrainedTokenizerBase, Wav2Vec2CTCTokenizer),
        ours.feature_extractor: (transformers.SequenceFeatureExtractor, SeamlessM4TFeatureExtractor),
        ours: (transformers.ProcessorMixin, Wav2Vec2BertProcessor),
    }
    for part, (published, own) in parts.items():
        assert isinstance(part, published)
        assert isinstance(part, own)
        assert type(part) is own
        assert not issubclass(own, published)
        assert part.__class__.__name__ == own.__name__
        for again in (pickle.loads(pickle.dumps(part)), copy.deepcopy(part), copy.copy(part)):
            assert type(again) is own
    assert pickle.loads(pickle.dumps(ours.tokenizer)).encode("E T") == [5, 4, 6]
    made = ours.feature_extractor.__class__(padding_value=2.0)
    assert (type(made), made.padding_value) == (SeamlessM4TFeatureExtractor, 2.0)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def ctc_model() -> Any:
    torch.manual_seed(0)
    config = transformers.Wav2Vec2BertConfig(
        **SMALL,
        vocab_size=len(VOCAB),
        pad_token_id=0,
        layerdrop=0.0,
        mask_time_prob=0.0,
        ctc_loss_reduction="mean",
    )
    return transformers.Wav2Vec2BertForCTC(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"return_timestamps": "word"}, {"return_timestamps": "char"}, {"chunk_length_s": 0.5}]
)
def test_recognition_pipeline(options: dict[str, Any]) -> None:
    said = []
    for processor in processors():
        parts = {"feature_extractor": processor.feature_extractor, "tokenizer": processor.tokenizer}
        pipeline = transformers.pipeline(
            "automatic-speech-recognition", ctc_model().eval(), device="cpu", **parts
        )
        said.append(pipeline({"raw": noise(16000), "sampling_rate": 16000}, **options))
    assert said[0]["text"]
    assert said[0] == said[1]


@pytest.mark.slow
def test_classification_pipeline() -> None:
    torch.manual_seed(0)
    config = transformers.Wav2Vec2BertConfig(**SMALL, classifier_proj_size=8, num_labels=3)
    model = transformers.Wav2Vec2BertForSequenceClassification(config).eval()
    scores = []
    for processor in processors():
        pipeline = transformers.pipeline(
            "audio-classification", model, feature_extractor=processor.feature_extractor, device="cpu"
        )
        found = pipeline({"raw": noise(16000), "sampling_rate": 16000}, top_k=3)
        scores.append({one["label"]: one["score"] for one in found})
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def collate(processor: Any, rows: list[dict[str, Any]]) -> Any:
    """As the published fine-tuning scripts have it."""
    features = [{"input_features": row["input_features"]} for row in rows]
    batch = processor.pad(features, padding=True, return_tensors="pt")
    labels = processor.pad(
        labels=[{"input_ids": row["labels"]} for row in rows], padding=True, return_tensors="pt"
    )
    batch["labels"] = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
    return batch


@pytest.mark.slow
def test_trainer(tmp_path: Path) -> None:
    """Six steps of the peer's model: the same losses, and a checkpoint with the processor's files."""
    losses = []
    for index, processor in enumerate(processors()):
        rows = []
        for samples, text in ((6000, "E TA"), (7000, "AT"), (8000, "x E")):
            features = processor(noise(samples), sampling_rate=16000).input_features[0]
            rows.append({"input_features": features, "labels": processor(text=text).input_ids})
        arguments = transformers.TrainingArguments(
            str(tmp_path / str(index)), max_steps=6, per_device_train_batch_size=2, logging_steps=1, seed=1,
            report_to=[], use_cpu=True, learning_rate=1e-3, save_steps=6, remove_unused_columns=False,
        )  # fmt: skip
        trainer = transformers.Trainer(
            ctc_model(),
            arguments,
            train_dataset=rows,
            data_collator=lambda batch, processor=processor: collate(processor, batch),
            processing_class=processor,
        )
        trainer.train()
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
        saved = Wav2Vec2BertProcessor.from_pretrained(tmp_path / str(index) / "checkpoint-6")
        assert saved.tokenizer.encode("E TA") == [5, 4, 6, 7]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
