"""Measure the demo's labels, speaker activity and x-vectors on voices that train_heads.py did not use.

    python demo/measure_heads.py [FOLDER]      # needs espeak-ng and the extras diarization and speakers

FOLDER holds the checkpoints classify, diarize and embed; it defaults to demo/.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import soundfile
import torch
import torchaudio.functional
from espeak import RATE, Waveform
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate
from sklearn.metrics import roc_curve
from train_heads import FRAME_S, HELD_OUT, draw_clip, draw_conversation

from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)

DEMO = Path(__file__).parent
SEED = 2
CLIPS = 320
CONVERSATIONS = 20
# From probabilities to segments; chosen on conversations of the training voices.
ONSET, OFFSET = 0.7, 0.3  # a speaker begins at the one, and goes on until below the other
MIN_ON_S, MIN_OFF_S = 0.3, 0.2  # shorter pauses are filled, then shorter segments dropped

# What one hears in the corpus. espeak-ng 1.51 speaks "en-gb+f5" in the plain male voice of "en-gb".
HEARD = {
    "en-us+f3": "female",
    "en-us+m4": "male",
    "en-gb+f5": "male",
    "en-gb-scotland+m6": "male",
    "en-gb-x-rp+Andrea": "female",
    "en-029+m2": "male",
}


def corpus() -> Iterator[tuple[str, Waveform]]:
    """Speaker and samples of each clip of the demo corpus, but for the broken one."""
    folder = DEMO / "corpus"
    for row in pq.read_table(folder / "parquet").to_pylist():
        yield row["speaker"], decoded(io.BytesIO(row["audio"]["bytes"]))
    with tarfile.open(folder / "webdataset/shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for name, content in members.items():
        if name.endswith((".flac", ".mp3")) and name != "000004.flac":
            yield json.loads(members[name.split(".")[0] + ".json"])["speaker"], decoded(io.BytesIO(content))
    with (DEMO / "references.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield row["speaker"], decoded(folder / row["path"])
    for entry in map(json.loads, (folder / "manifest/list.jsonl").read_text().splitlines()):
        samples = decoded(folder / "manifest" / entry["audio_filepath"])
        first = round(entry["offset"] * RATE)
        yield entry["speaker"], samples[first : first + round(entry["duration"] * RATE)]


def decoded(file: Path | io.BytesIO) -> Waveform:
    """One channel at 16 kHz."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    resampled: Waveform = torchaudio.functional.resample(mono, rate, RATE).numpy()
    return resampled


class Head:
    """A checkpoint that is asked about one recording at a time."""

    def __init__(self, kind: Any, checkpoint: Path) -> None:
        self.model = kind.from_pretrained(checkpoint)
        self.extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)

    @torch.inference_mode()
    def __call__(self, samples: Waveform) -> Any:
        return self.model(torch.from_numpy(self.extractor.extract(samples))[None])

    def label(self, samples: Waveform) -> str:
        label: str = self.model.config.id2label[int(self(samples).logits[0].argmax())]
        return label

    def embedding(self, samples: Waveform) -> npt.NDArray[np.float32]:
        embedding: npt.NDArray[np.float32] = self(samples).embeddings[0].numpy()
        return embedding

    def segments(self, samples: Waveform) -> Annotation:
        probabilities = self(samples).logits[0].sigmoid().numpy()
        found = Annotation()
        for index, label in self.model.config.id2label.items():
            borders = np.flatnonzero(
                np.diff(hysteresis(probabilities[:, index]), prepend=False, append=False)
            )
            for start, end in borders.reshape(-1, 2) * FRAME_S:
                found[Segment(start, end), label] = label
        filled = found.support(MIN_OFF_S)
        for segment, track in list(filled.itertracks()):
            if segment.duration < MIN_ON_S:
                del filled[segment, track]
        return filled


def hysteresis(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(frames,): whether the last frame that was above the onset or below the offset was above the onset."""
    decided = (probabilities >= ONSET) | (probabilities < OFFSET)
    last = np.maximum.accumulate(np.where(decided, np.arange(len(decided)), 0))
    active: npt.NDArray[np.bool_] = probabilities[last] >= ONSET
    return active


def error_rate(pairs: Sequence[tuple[Annotation, Annotation, float]], collar: float = 0.0) -> str:
    """DER with its parts over (reference, hypothesis, seconds); `collar` is left out around each border."""
    metric: Any = DiarizationErrorRate(collar=2 * collar)  # which pyannote counts on both sides together
    for reference, hypothesis, seconds in pairs:
        metric(reference, hypothesis, uem=Timeline([Segment(0, seconds)]))
    total = metric["total"]
    parts = [
        f"{part} {metric[part] / total:.1%}" for part in ("missed detection", "false alarm", "confusion")
    ]
    return f"{abs(metric):.1%} ({', '.join(parts)})"


def equal_error_rate(vectors: Sequence[npt.NDArray[np.float32]], speakers: Sequence[str]) -> str:
    """EER of the cosine over all pairs of clips."""
    unit = np.stack([vector / np.linalg.norm(vector) for vector in vectors])
    first, second = np.triu_indices(len(unit), 1)
    same = np.array(speakers)[first] == np.array(speakers)[second]
    false_accept, accept, _ = roc_curve(same, (unit @ unit.T)[first, second])
    best = np.argmin(np.abs(false_accept - (1 - accept)))
    rate = (false_accept[best] + 1 - accept[best]) / 2
    return f"{rate:.1%} of {len(same)} pairs of {len(unit)} clips by {len(set(speakers))} voices"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    classify = Head(Wav2Vec2BertForSequenceClassification, folder / "classify")
    diarize = Head(Wav2Vec2BertForAudioFrameClassification, folder / "diarize")
    embed = Head(Wav2Vec2BertForXVector, folder / "embed")

    voices = [(sex, variant) for sex, variants in HELD_OUT.items() for variant in variants]
    held_out = []
    for index in range(CLIPS):
        sex, variant = voices[index % len(voices)]
        held_out.append((sex, variant, draw_clip(rng, variant)))
    heard = list(corpus())
    right = sum(classify.label(samples) == sex for sex, _, samples in held_out)
    print(f"labels, held-out voices: {right} of {len(held_out)} right ({right / len(held_out):.1%})")
    wrong = [speaker for speaker, samples in heard if classify.label(samples) != HEARD[speaker]]
    print(f"labels, the corpus: {len(heard) - len(wrong)} of {len(heard)} right; wrong: {sorted(wrong)}")

    samples = decoded(DEMO / "meeting/meeting.flac")
    reference = load_rttm(DEMO / "meeting/meeting.rttm")["meeting"]
    meeting = [(reference, diarize.segments(samples), len(samples) / RATE)]
    print(f"DER, the meeting: {error_rate(meeting)}; with a collar of 0.25 s {error_rate(meeting, 0.25)}")
    others = []
    for _ in range(CONVERSATIONS):
        samples, turns, _ = draw_conversation(rng, HELD_OUT)
        reference = Annotation()
        for turn in turns:
            reference[Segment(turn.start_s, turn.end_s)] = turn.speaker
        others.append((reference, diarize.segments(samples), len(samples) / RATE))
    print(f"DER, {CONVERSATIONS} conversations of held-out voices: {error_rate(others)}")

    vectors = [embed.embedding(samples) for _, _, samples in held_out]
    print(f"EER, held-out voices: {equal_error_rate(vectors, [variant for _, variant, _ in held_out])}")
    vectors = [embed.embedding(samples) for _, samples in heard]
    print(f"EER, the corpus: {equal_error_rate(vectors, [speaker for speaker, _ in heard])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO)
