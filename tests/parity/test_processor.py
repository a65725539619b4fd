"""The processor against the published one, files included, and decoding of real speech."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from transformers import (
    SeamlessM4TFeatureExtractor as PeerExtractor,
)
from transformers import (
    Wav2Vec2BertForCTC as PeerModel,
)
from transformers import (
    Wav2Vec2BertProcessor as Peer,
)
from transformers import (
    Wav2Vec2CTCTokenizer as PeerTokenizer,
)

from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertProcessor, Wav2Vec2CTCTokenizer
from w2vbert.decoding.greedy import best_path, read_path

VOCAB = {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4, "<s>": 5, "</s>": 6}


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Wav2Vec2BertProcessor, Peer]:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(VOCAB))
    return (
        Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), Wav2Vec2CTCTokenizer(path)),
        Peer(PeerExtractor(), PeerTokenizer(str(path))),
    )


def assert_same(ours: dict, peer: dict) -> None:
    assert set(ours) == set(peer)
    for key in peer:
        assert type(ours[key]) is type(peer[key])
        np.testing.assert_allclose(ours[key], peer[key], atol=2e-6)


CALLS = [
    {"audio": noise(4000)},
    {"audio": [noise(4000), noise(3001)], "return_tensors": "pt"},
    {"text": "ab a"},
    {"text": ["ab a", "b"], "padding": True, "return_tensors": "np"},
    {"audio": [noise(4000), noise(3001)], "text": ["ab", "a"], "padding": True, "return_tensors": "pt"},
    {"audio": noise(4000), "text": "ab", "text_kwargs": {"padding": "max_length", "max_length": 5}},
    {"audio": [noise(4000)], "text": ["ab"], "return_attention_mask": False},
    {"audio": noise(9000), "max_length": 20, "padding": "max_length", "truncation": True},
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(call))
@pytest.mark.parametrize("reloaded", ["neither", "by_peer", "by_us"])
def test_calls(pair: tuple[Wav2Vec2BertProcessor, Peer], tmp_path: Path, call: dict, reloaded: str) -> None:
    ours, peer = pair
    if reloaded == "by_peer":
        ours.save_pretrained(tmp_path / "saved")
        peer = Peer.from_pretrained(tmp_path / "saved")
    elif reloaded == "by_us":
        peer.save_pretrained(tmp_path / "saved")
        ours = Wav2Vec2BertProcessor.from_pretrained(tmp_path / "saved")
    if "audio" in call:
        call = {**call, "sampling_rate": 16000}
    assert_same(ours(**call), peer(**call))


def test_pad(pair: tuple[Wav2Vec2BertProcessor, Peer]) -> None:
    ours, peer = pair
    features = [{"input_features": np.ones((n, 160), np.float32)} for n in (3, 5)]
    labels = [{"input_ids": [3, 4, 3]}, {"input_ids": [3]}]
    for arguments in (
        {"input_features": features},
        {"labels": labels},
        {"input_features": features, "labels": labels},
    ):
        for options in ({"return_tensors": "pt"}, {"return_tensors": "np", "padding": "longest"}):
            assert_same(ours.pad(**arguments, **options), peer.pad(**arguments, **options))


def test_decoding(pair: tuple[Wav2Vec2BertProcessor, Peer]) -> None:
    ours, peer = pair
    ids = np.random.default_rng(0).integers(0, 7, (4, 100))
    assert ours.batch_decode(ids) == peer.batch_decode(ids)
    found = ours.batch_decode(ids, output_word_offsets=True, output_char_offsets=True)
    expected = peer.batch_decode(ids, output_word_offsets=True, output_char_offsets=True)
    assert found.word_offsets == expected.word_offsets
    assert found.char_offsets == expected.char_offsets


def test_trained_checkpoint(shared_models: Path, shared_data: Path) -> None:
    """Our features into the peer's model and its logits into our decoding: its transcripts and word frames.

    The peer reads the partial last frame too, so it is kept here, and masked.
    """
    checkpoint = shared_models / "digits-ctc"
    processor = Wav2Vec2BertProcessor.from_pretrained(checkpoint)
    extractor = processor.feature_extractor
    model = PeerModel.from_pretrained(checkpoint).eval()
    lines = (checkpoint / "expected.jsonl").read_text().splitlines()
    for line in lines:
        clip = json.loads(line)
        audio, rate = soundfile.read(shared_data / clip["path"], dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(audio), rate, 16000)
        features = torch.from_numpy(extractor.extract(waveform, keep_partial=True))
        mask = (torch.arange(len(features)) < extractor.num_frames(len(waveform))).int()
        with torch.inference_mode():
            logits = model(features[None], attention_mask=mask[None]).logits[0]
        assert len(logits) == clip["frames"]
        transcript = read_path(*best_path(logits), processor.tokenizer)
        words = [
            {"word": word.word, "start_frame": word.start_frame, "end_frame": word.end_frame}
            for word in transcript.words
        ]
        assert (clip["path"], transcript.text, words) == (clip["path"], clip["text"], clip["words"])
    assert len(lines) == 260
