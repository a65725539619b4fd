"""Transcripts from logits: text, words, frames, confidences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
import torchaudio

from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC, Wav2Vec2CTCTokenizer
from w2vbert.decoding.greedy import Word, best_path, read_path
from w2vbert.packing import Packed


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    path.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}))
    return Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None)


def test_words_and_confidences(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """By hand: a word's confidence is the mean of its tokens, a token's the mean of its frames."""
    ids = torch.tensor([0, 3, 3, 0, 3, 4, 2, 0, 2, 4])
    posteriors = torch.tensor([0.1, 0.8, 0.6, 0.1, 0.5, 0.9, 0.4, 0.1, 0.2, 1.0])
    transcript = read_path(ids, posteriors, tokenizer)
    assert transcript.text == "aab  b"
    (first, second) = transcript.words
    assert (first.word, first.start_frame, first.end_frame) == ("aab", 1, 6)
    assert first.confidence == pytest.approx((0.7 + 0.5 + 0.9) / 3)
    assert (second.word, second.start_frame, second.end_frame) == ("b", 9, 10)
    assert second.confidence == pytest.approx(1.0)
    assert transcript.confidence == pytest.approx((0.7 + 0.5 + 0.9 + 0.4 + 0.2 + 1.0) / 6)


@pytest.mark.parametrize("frames", [0, 5])
def test_nothing_said(tokenizer: Wav2Vec2CTCTokenizer, frames: int) -> None:
    logits = torch.zeros(frames, 5)
    logits[:, 0] = 1
    transcript = read_path(*best_path(logits), tokenizer)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), None)


def test_greedy_takes_logits_or_log_probabilities(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    logits = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    transcript = read_path(*best_path(logits), tokenizer)
    from_log_probabilities = read_path(*best_path(logits.log_softmax(-1)), tokenizer)
    assert len(transcript.words) > 10
    assert [word.word for word in transcript.words] == transcript.text.split()
    assert from_log_probabilities.text == transcript.text
    assert from_log_probabilities.confidence == pytest.approx(transcript.confidence)
    assert min(word.confidence for word in transcript.words) > 0
    assert max(word.confidence for word in transcript.words) < 1


def test_best_path_of_a_batch() -> None:
    """Frames do not mix, so clips may be packed or padded; half precision is summed in single."""
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0))
    ids, posteriors = best_path(logits)
    probabilities = logits.softmax(-1)
    assert torch.equal(ids, logits.argmax(-1))
    torch.testing.assert_close(posteriors, probabilities.amax(-1))
    flat_ids, flat_posteriors = best_path(logits.reshape(-1, 11))
    assert torch.equal(flat_ids, ids.flatten())
    assert torch.equal(flat_posteriors, posteriors.flatten())
    assert best_path(logits.bfloat16())[1].dtype == torch.float32


def test_unknown_ids_read_as_unknown(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """A head may have more classes than the tokenizer has tokens."""
    logits = torch.eye(8)[[3, 7, 6, 4]] * 20
    assert read_path(*best_path(logits), tokenizer).words == (
        Word("a<unk>b", 0, 4, pytest.approx(1.0, abs=1e-6)),
    )


def test_trained_checkpoint(shared_models: Path, shared_data: Path) -> None:
    """Real speech through a trained model: text and word frames of the peer, word for word.

    Clips with a partial last frame are left to the parity tests: the peer reads that frame too.
    """
    checkpoint = shared_models / "digits-ctc"
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(checkpoint)
    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    compared = 0
    for line in (checkpoint / "expected.jsonl").read_text().splitlines():
        clip = json.loads(line)
        audio, rate = soundfile.read(shared_data / clip["path"], dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(audio), rate, 16000)
        features = torch.from_numpy(extractor.extract(waveform))
        if len(features) != clip["frames"]:
            continue
        with torch.inference_mode():
            encoding = model.wav2vec2_bert.encode(Packed.from_sequences([features]))
            logits = model.frame_logits(encoding).frames
        transcript = read_path(*best_path(logits), tokenizer)
        words = [
            {"word": word.word, "start_frame": word.start_frame, "end_frame": word.end_frame}
            for word in transcript.words
        ]
        assert (clip["path"], transcript.text, words) == (clip["path"], clip["text"], clip["words"])
        compared += 1
    assert compared == 129
