"""The model alone: a recording to words with their times.

python examples/model.py [AUDIO]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import soundfile
import torch
from torchaudio.functional import resample

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from w2vbert import Wav2Vec2BertForCTC, Wav2Vec2BertProcessor

DEMO = Path(__file__).resolve().parent.parent / "demo"


def main(audio: str = str(DEMO / "audio" / "clip-0.flac")) -> None:
    """Prints the transcript, then each word with its seconds."""
    processor = Wav2Vec2BertProcessor.from_pretrained(DEMO / "checkpoint")
    model = Wav2Vec2BertForCTC.from_pretrained(DEMO / "checkpoint")

    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    waveform = resample(torch.from_numpy(samples.mean(axis=1)), rate, 16_000)
    inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits

    decoded: Any = processor.tokenizer.decode(logits[0].argmax(-1), output_word_offsets=True)
    frame_s = model.config.inputs_to_logits_ratio / 16_000
    print(decoded.text)
    for word in decoded.word_offsets:
        print(f"{word['start_offset'] * frame_s:6.2f} {word['end_offset'] * frame_s:6.2f}  {word['word']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
