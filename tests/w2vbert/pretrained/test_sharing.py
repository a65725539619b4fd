"""Task models around one encoder, and statistics over many clips at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.w2vbert.heads.test_heads import build, features
from w2vbert.heads import Wav2Vec2BertForCTC, Wav2Vec2BertForXVector
from w2vbert.heads.moments import Moments, segment_mean_std
from w2vbert.pretrained.model import backbone_digest


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CTC model, and an x-vector model around the same encoder."""
    ctc, xvector = tmp_path_factory.mktemp("ctc"), tmp_path_factory.mktemp("xvector")
    first, second = build(Wav2Vec2BertForCTC), build(Wav2Vec2BertForXVector)
    second.wav2vec2_bert.load_state_dict(first.wav2vec2_bert.state_dict())
    first.save_pretrained(ctc)
    second.save_pretrained(xvector)
    return ctc, xvector


def test_a_head_on_a_loaded_encoder_is_the_whole_model(saved: tuple[Path, Path]) -> None:
    ctc, xvector = (
        Wav2Vec2BertForCTC.from_pretrained(saved[0]),
        Wav2Vec2BertForXVector.from_pretrained(saved[1]),
    )
    assert backbone_digest(ctc) == backbone_digest(xvector)
    shared = Wav2Vec2BertForXVector.from_pretrained(saved[1], backbone=ctc.wav2vec2_bert)
    assert shared.wav2vec2_bert is ctc.wav2vec2_bert
    assert not shared.training
    packed = features((40, 61))
    inputs = packed.pad(), packed.mask()
    with torch.inference_mode():
        assert torch.equal(shared(*inputs).embeddings, xvector(*inputs).embeddings)
    for name, parameter in shared.named_parameters():
        assert not parameter.is_meta, name


def test_the_encoder_is_left_as_it_was(saved: tuple[Path, Path]) -> None:
    ctc = Wav2Vec2BertForCTC.from_pretrained(saved[0])
    before = {name: tensor.clone() for name, tensor in ctc.state_dict().items()}
    _, info = Wav2Vec2BertForXVector.from_pretrained(  # type: ignore[misc]
        saved[1], backbone=ctc.wav2vec2_bert, output_loading_info=True
    )
    assert info["missing_keys"] == set()
    assert all(torch.equal(before[name], tensor) for name, tensor in ctc.state_dict().items())


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    gaps=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_mean_and_std_of_many_segments_are_those_of_each(lengths: list[int], gaps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spans, at = [], gaps
    for length in lengths:
        spans.append((at, at + length))
        at += length + gaps
    frames = torch.randn(at, 5, generator=generator) * 3 + 7
    means, deviations = segment_mean_std(frames, spans)
    for (start, stop), mean, deviation in zip(spans, means, deviations, strict=True):
        one = Moments()
        one.add(frames[start:stop])
        torch.testing.assert_close(mean, one.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(deviation, one.deviation(), rtol=1e-4, atol=1e-5)
