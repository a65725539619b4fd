"""The last frame of a clip that the audio fills in part: the peer masks it, computes it and decodes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tests.parity.configs import POSITIONS, pair, random_config
from tests.parity.test_encoder import CLOSE
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.packing import Packed

BINS = 8
OURS = SeamlessM4TFeatureExtractor(feature_size=BINS, num_mel_bins=BINS)
PEERS = transformers.SeamlessM4TFeatureExtractor(feature_size=BINS, num_mel_bins=BINS)
# Odd and even numbers of fbank frames; clips of the same length with a partial frame and without.
FBANK_FRAMES = (29, 58, 30, 29, 3, 57)


def waveforms() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    return [rng.normal(scale=0.1, size=400 + 160 * (n - 1)).astype(np.float32) for n in FBANK_FRAMES]


def packed() -> tuple[Packed, list[int]]:
    """Features of all clips with their partial frames, and how many frames the masks let through."""
    features = [torch.from_numpy(OURS.extract(clip, keep_partial=True)) for clip in waveforms()]
    return Packed.from_sequences(features), [OURS.num_frames(len(clip)) for clip in waveforms()]


def peers_inputs() -> list[dict[str, Tensor]]:
    return [PEERS(clip, sampling_rate=16000, return_tensors="pt") for clip in waveforms()]


def config_of(positions: str | None, seed: int, **fields: Any) -> Wav2Vec2BertConfig:
    return random_config(
        seed, position_embeddings_type=positions, feature_projection_input_dim=2 * BINS, **fields
    )


@pytest.mark.slow
@pytest.mark.parametrize("add_adapter", [False, True])
@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_every_clip_gets_what_the_peer_gives_it_alone(positions: str | None, add_adapter: bool) -> None:
    config = config_of(positions, 50, add_adapter=add_adapter, conv_depthwise_kernel_size=7)
    ours, peer = pair(Wav2Vec2BertModel, config)
    features, num_valid = packed()
    assert [n - a for n, a in zip(features.lengths, num_valid, strict=True)] == [1, 0, 0, 1, 1, 1]
    encoding = ours.encode(features, num_valid=num_valid, output_hidden_states=True)
    expected = [peer(**inputs, output_hidden_states=True) for inputs in peers_inputs()]

    assert encoding.last_hidden_state.lengths == ours.output_lengths(features.lengths)
    theirs = torch.cat([output.last_hidden_state[0] for output in expected])
    torch.testing.assert_close(encoding.last_hidden_state.frames, theirs, **CLOSE)
    states = encoding.hidden_states or ()
    for state, *of_clips in zip(states, *(output.hidden_states for output in expected), strict=True):
        assert state.lengths == features.lengths
        torch.testing.assert_close(state.frames, torch.cat(of_clips, dim=1)[0], **CLOSE)

    for row, clip in enumerate(features.split()):
        alone = ours.encode(Packed(clip, (len(clip),)), num_valid=num_valid[row : row + 1])
        mine = encoding.last_hidden_state.split()[row]
        torch.testing.assert_close(mine, alone.last_hidden_state.frames, atol=1e-5, rtol=0)


@torch.no_grad()
def test_valid_frames_do_not_see_the_partial_one() -> None:
    model, _ = pair(Wav2Vec2BertModel, config_of("relative_key", 51, add_adapter=False))
    features, num_valid = packed()
    whole = [clip[:count] for clip, count in zip(features.split(), num_valid, strict=True)]
    without = model.encode(Packed.from_sequences(whole)).last_hidden_state.split()
    states = model.encode(features, num_valid=num_valid).last_hidden_state.split()
    seeing = model.encode(features).last_hidden_state.split()
    for count, expected, state, other in zip(num_valid, without, states, seeing, strict=True):
        torch.testing.assert_close(state[:count], expected, atol=1e-5, rtol=0)
        assert (len(state) == count) == torch.allclose(state, other, atol=1e-3)


@torch.no_grad()
def test_attending_to_every_frame_is_the_rule() -> None:
    # A kernel and a stride for which the peer's masks and its convolution disagree.
    config = config_of("relative", 52, add_adapter=True, adapter_kernel_size=4, adapter_stride=6)
    model, _ = pair(Wav2Vec2BertModel, config)
    clips, _ = packed()
    features = Packed.from_sequences([clip.repeat(4, 1) for clip in clips.split()])
    expected = model.encode(features).last_hidden_state.split()
    given = model.encode(features, num_valid=features.lengths).last_hidden_state.split()
    torch.testing.assert_close(given, expected, atol=0, rtol=0)
    # One clip's partial frame changes nothing for the others.
    fewer = (features.lengths[0] - 1, *features.lengths[1:])
    beside = model.encode(features, num_valid=fewer).last_hidden_state.split()
    torch.testing.assert_close(beside[1:], expected[1:], atol=1e-5, rtol=0)
    assert not torch.allclose(beside[0], expected[0], atol=1e-3)


@torch.no_grad()
def test_ctc_logits() -> None:
    config = config_of("relative_key", 53, add_adapter=False, vocab_size=9, pad_token_id=0)
    ours, peer = pair(Wav2Vec2BertForCTC, config)
    features, num_valid = packed()
    logits = ours.frame_logits(ours.wav2vec2_bert.encode(features, num_valid=num_valid))
    assert logits.lengths == features.lengths
    for mine, inputs in zip(logits.split(), peers_inputs(), strict=True):
        torch.testing.assert_close(mine, peer(**inputs).logits[0], **CLOSE)
