"""The processor: which part gets what, times in seconds, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

VOCAB = {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}


@pytest.fixture
def processor(tmp_path: Path) -> Wav2Vec2BertProcessor:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(VOCAB))
    tokenizer = Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None)
    return Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer)


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def test_audio_text_or_both(processor: Wav2Vec2BertProcessor) -> None:
    clips, texts = [noise(4000), noise(3000)], ["ab", "a ab"]
    both = processor(audio=clips, text=texts, sampling_rate=16000, padding=True, return_tensors="pt")
    assert both.labels.tolist() == [[3, 4, 0, 0], [3, 2, 3, 4]]
    audio = processor(clips, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(both.input_features, audio.input_features)
    assert set(audio) == {"input_features", "attention_mask"}
    text = processor(text=texts, padding=True)
    assert text.data == {
        "input_ids": [[3, 4, 0, 0], [3, 2, 3, 4]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
    }
    assert [*both] == processor.model_input_names


def test_options_for_one_part(processor: Wav2Vec2BertProcessor) -> None:
    batch = processor(
        audio=noise(4000),
        text=["a", "ab"],
        sampling_rate=16000,
        text_kwargs={"padding": "max_length", "max_length": 3},
        audio_kwargs={"return_attention_mask": False},
    )
    assert batch.labels == [[3, 0, 0], [3, 4, 0]]
    assert "attention_mask" not in batch
    assert batch.input_features.shape == (1, 12, 160)


def test_wrong_calls(processor: Wav2Vec2BertProcessor) -> None:
    with pytest.raises(ValueError, match="give audio, text or both"):
        processor()
    with pytest.raises(TypeError, match=r"no.* option 'samplingrate'"):
        processor(noise(4000), samplingrate=16000)
    with pytest.raises(ValueError, match="padding is given twice"):
        processor(noise(4000), padding=True, audio_kwargs={"padding": False})
    with pytest.raises(ValueError, match="give input_features, labels or both"):
        processor.pad()


def test_pad(processor: Wav2Vec2BertProcessor) -> None:
    features = [{"input_features": np.ones((n, 160), np.float32)} for n in (3, 5)]
    labels = [{"input_ids": [3, 4, 3]}, {"input_ids": [3]}]
    batch = processor.pad(features, labels, return_tensors="pt")
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.labels.tolist() == [[3, 4, 3], [3, 0, 0]]
    assert processor.pad(labels=labels).input_ids == [[3, 4, 3], [3, 0, 0]]
    assert set(processor.pad(features)) == {"input_features", "attention_mask"}


def test_decoding(processor: Wav2Vec2BertProcessor) -> None:
    ids = [3, 0, 3, 2, 4]
    assert processor.decode(ids) == "aa b"
    assert processor.batch_decode([ids, ids], output_word_offsets=True).text == ["aa b"] * 2
    assert processor.decode_labels([[3, 3, -100]]) == ["aa"]


def test_both_layouts(processor: Wav2Vec2BertProcessor, tmp_path: Path) -> None:
    five, four = tmp_path / "five", tmp_path / "four"
    processor.extra["house_rule"] = 1
    processor.save_pretrained(five)
    config = json.loads((five / "processor_config.json").read_text())
    assert config["house_rule"] == 1
    processor.tokenizer.save_pretrained(four)
    processor.feature_extractor.save_pretrained(four)
    expected = processor(audio=noise(4000), text="ab", sampling_rate=16000)
    for folder in (four, five):
        loaded = Wav2Vec2BertProcessor.from_pretrained(folder)
        found = loaded(audio=noise(4000), text="ab", sampling_rate=16000)
        np.testing.assert_array_equal(found.input_features, expected.input_features)
        assert found.labels == [3, 4]
    assert Wav2Vec2BertProcessor.from_pretrained(five).extra == {"house_rule": 1}
