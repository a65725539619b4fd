"""Fixtures every test may use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: several processes with several threads each trample one another on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str) -> Path:
    base = Path(os.environ.get("W2VBERT_SHARED", ROOT.parent / "shared"))
    path = base / name
    if not path.is_dir():
        pytest.skip(f"{name}/ of the shared test material is absent (set W2VBERT_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech with labels; the test is skipped where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of checkpoints made with the peer; the test is skipped where it is absent."""
    return _shared("models")


@pytest.fixture(scope="session")
def digit_strings(shared_models: Path, shared_data: Path) -> list[tuple[dict[str, Any], Tensor]]:
    """Strings of spoken digits: each as `expected.jsonl` tells of it, and its logits (frames, vocab)."""
    import soundfile
    import torch
    import torchaudio

    from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC
    from w2vbert.packing import Packed

    checkpoint = shared_models / "digits-ctc"
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    strings = []
    for line in (checkpoint / "expected.jsonl").read_text("utf-8").splitlines():
        clip = json.loads(line)
        if not clip["path"].startswith("strings/"):
            continue
        audio, rate = soundfile.read(shared_data / clip["path"], dtype="float32")
        waveform = torchaudio.functional.resample(torch.from_numpy(audio), rate, 16000)
        features = torch.from_numpy(extractor.extract(waveform, keep_partial=True))
        num_valid = [extractor.num_frames(len(waveform))]
        with torch.inference_mode():
            encoding = model.wav2vec2_bert.encode(Packed.from_sequences([features]), num_valid=num_valid)
            strings.append((clip, model.frame_logits(encoding).frames))
    return strings
