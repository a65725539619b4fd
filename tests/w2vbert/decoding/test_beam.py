"""Beam search: greedy where it must be, led by a lexicon and a language model where it should."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import jiwer
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC, Wav2Vec2CTCTokenizer
from w2vbert.decoding.alignment import align
from w2vbert.decoding.beam import BeamDecoder, BeamOptions
from w2vbert.decoding.greedy import best_path, read_path
from w2vbert.packing import Packed

VOCAB = {"<pad>": 0, "|": 1, "a": 2, "b": 3, "c": 4}

# Of words: "ab" is likely after "c", "b" elsewhere.
ARPA = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.1
-0.5\t</s>
-1.0\tab\t-0.1
-1.0\tb\t-0.1
-1.0\tc\t-0.1

\\2-grams:
-0.05\tc ab
-2.0\tc b
-0.1\t<s> c

\\end\\
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    path.write_text(json.dumps(VOCAB))
    return Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None, unk_token=None)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(ARPA)
    return path


def emissions(*frames: dict[str, float]) -> torch.Tensor:
    """Log probabilities from what a frame holds; the rest is shared by the other tokens."""
    rows = []
    for frame in frames:
        rest = (1 - sum(frame.values())) / (len(VOCAB) - len(frame))
        rows.append([math.log(frame.get(token, rest)) for token in VOCAB])
    return torch.tensor(rows)


SURE = {"<pad>": 0.96}
C_THEN_B_OR_AB = emissions({"c": 0.96}, {"|": 0.96}, {"a": 0.44, "<pad>": 0.5}, {"b": 0.96}, {"|": 0.9}, SURE)


def test_language_model_decides(tokenizer: Wav2Vec2CTCTokenizer, arpa: Path) -> None:
    """Greedy hears "c b"; after "c" the model expects "ab"."""
    assert read_path(*best_path(C_THEN_B_OR_AB), tokenizer).text == "c b"
    words = ["ab", "b", "c"]
    without = BeamDecoder(tokenizer, lexicon=words)(C_THEN_B_OR_AB)
    assert [hypothesis.transcript.text for hypothesis in without] == ["c b"]
    (best,) = BeamDecoder(tokenizer, lexicon=words, language_model=arpa)(C_THEN_B_OR_AB)
    assert best.transcript.text == "c ab"
    first, second = best.transcript.words
    assert (first.word, first.start_frame, first.end_frame) == ("c", 0, 1)
    assert (second.word, second.start_frame, second.end_frame) == ("ab", 2, 4)
    assert second.confidence == pytest.approx((0.44 + 0.96) / 2)


def test_lexicon_decides(tokenizer: Wav2Vec2CTCTokenizer, tmp_path: Path) -> None:
    """Only words of the lexicon can come out; it may be a file too."""
    (only,) = BeamDecoder(tokenizer, lexicon=["ab", "c"])(C_THEN_B_OR_AB)
    assert only.transcript.text == "c ab"
    (tmp_path / "lexicon.txt").write_text("ab\ta b |\nc\tc |\n")
    (read,) = BeamDecoder(tokenizer, lexicon=tmp_path / "lexicon.txt")(C_THEN_B_OR_AB)
    assert read == only
    (tmp_path / "lexicon.txt").write_text("ab\ta b |\n\nd\td |\n")
    with pytest.raises(ValueError, match=r"lexicon\.txt, line 3: 'd' is not in the vocabulary"):
        BeamDecoder(tokenizer, lexicon=tmp_path / "lexicon.txt")


def test_last_word_needs_no_delimiter(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """Clips end with their last letter, while words of a lexicon end with a delimiter."""
    clip = emissions({"c": 0.97}, {"|": 0.97}, {"a": 0.97}, {"b": 0.9997})
    (best,) = BeamDecoder(tokenizer, lexicon=["ab", "c", "a"])(clip)
    assert best.transcript.text == "c ab"
    assert best.transcript.words[-1].end_frame == 4
    assert best.score == pytest.approx(math.log(0.97**3 * 0.9997), abs=1e-4)


def test_language_model_of_tokens(tokenizer: Wav2Vec2CTCTokenizer, tmp_path: Path) -> None:
    """Without a lexicon the model scores tokens: this one wants "a" before "b"."""
    path = tmp_path / "tokens.arpa"
    path.write_text(
        "\\data\\\nngram 1=7\nngram 2=2\n\n\\1-grams:\n-3\t<unk>\n-99\t<s>\t0\n-1\t</s>\n-0.3\t|\t0\n"
        "-0.3\ta\t0\n-0.3\tb\t0\n-0.3\tc\t0\n\n\\2-grams:\n-0.01\ta b\n-3.0\t| b\n\n\\end\\\n"
    )
    (best,) = BeamDecoder(tokenizer, language_model=path)(C_THEN_B_OR_AB)
    assert best.transcript.text == "c ab"


def test_nbest_in_order(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    hypotheses = BeamDecoder(tokenizer, BeamOptions(nbest=3), lexicon=["ab", "b", "c", "a"])(C_THEN_B_OR_AB)
    assert [hypothesis.transcript.text for hypothesis in hypotheses[:2]] == ["c b", "c ab"]
    scores = [hypothesis.score for hypothesis in hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert 2 <= len(hypotheses) <= 3


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 5), seed=st.integers(0, 1000))
def test_free_search_finds_the_likeliest_path(
    tokenizer: Wav2Vec2CTCTokenizer, frames: int, seed: int
) -> None:
    """Against all paths there are: with a wide beam the labelling of the likeliest path wins.

    The search begins as if a word had just ended, so a delimiter in the first frames changes nothing.
    """
    log_probs = (2 * torch.randn(frames, 5, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    scores = (
        sum(log_probs[frame, label].item() for frame, label in enumerate(path))
        for path in itertools.product(range(5), repeat=frames)
    )
    (best,) = BeamDecoder(tokenizer, BeamOptions(beam_size=2000, beam_threshold=1e4))(log_probs)
    assert best.score == pytest.approx(max(scores), rel=1e-4)


def test_beam_of_one_is_greedy(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    logits = 3 * torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    (best,) = BeamDecoder(tokenizer, BeamOptions(beam_size=1))(logits)
    greedy = read_path(*best_path(logits), tokenizer)
    assert best.transcript.text == greedy.text
    assert [(w.word, w.start_frame, w.end_frame) for w in best.transcript.words] == [
        (w.word, w.start_frame, w.end_frame) for w in greedy.words
    ]
    assert best.transcript.confidence == pytest.approx(greedy.confidence)


def test_more_or_fewer_classes_than_tokens(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    decoder = BeamDecoder(tokenizer)
    wider = torch.cat([C_THEN_B_OR_AB, torch.full((6, 3), -30.0)], dim=1)
    assert decoder(wider)[0].transcript.text == "c b"
    assert decoder(C_THEN_B_OR_AB[:, :4])[0].transcript.words
    assert decoder(C_THEN_B_OR_AB[:0]) == []


def test_wrong_configuration(tokenizer: Wav2Vec2CTCTokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no language model .*lm\.bin"):
        BeamDecoder(tokenizer, language_model=tmp_path / "lm.bin")
    with pytest.raises(FileNotFoundError, match="no lexicon"):
        BeamDecoder(tokenizer, lexicon="words.txt")
    with pytest.raises(ValueError, match="no word that the vocabulary can spell"):
        BeamDecoder(tokenizer, lexicon=["xyz", ""])
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"a": 0}))
    with pytest.raises(ValueError, match="needs a pad_token"):
        BeamDecoder(Wav2Vec2CTCTokenizer(path, pad_token=None, word_delimiter_token=None))


def test_real_speech(shared_models: Path, shared_data: Path) -> None:
    """Strings of digits: knowing the ten words takes most errors away; the right text aligns best."""
    checkpoint = shared_models / "digits-ctc"
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(checkpoint)
    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    decoder = BeamDecoder(tokenizer, lexicon=words)
    references, greedy, beam = [], [], []
    for line in (checkpoint / "expected.jsonl").read_text().splitlines()[:60]:
        clip = json.loads(line)
        audio, rate = soundfile.read(shared_data / clip["path"], dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(audio), rate, 16000)
        features = torch.from_numpy(extractor.extract(waveform))
        with torch.inference_mode():
            encoding = model.wav2vec2_bert.encode(Packed.from_sequences([features]))
            logits = model.frame_logits(encoding).frames
        references.append(clip["reference"])
        greedy.append(read_path(*best_path(logits), tokenizer).text)
        beam.append(decoder(logits)[0].transcript.text)
        other = " ".join("zero" if word != "zero" else "one" for word in clip["reference"].split())
        told = align(logits, tokenizer.encode(clip["reference"]), tokenizer.pad_token_id)
        assert tokenizer.decode(told.path) == clip["reference"]
        assert told.score > align(logits, tokenizer.encode(other), tokenizer.pad_token_id).score + 0.2
    assert set(" ".join(beam).split()) <= set(words)
    assert 0.05 < jiwer.wer(references, greedy) < 0.10
    assert jiwer.wer(references, beam) < 0.03
