"""The contenders: the same random weights in the peer's model and in ours, and clips to run them on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.gpu.section import Section
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.kernels.backend import SWITCH
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.packing import Packed

FRAMES_A_SECOND = 50
BUDGET = 65_536  # frames of a pack
TOTAL = 52_000  # frames of a mix: 1,040 s of audio


@contextmanager
def backend(name: str) -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = name
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before


def build(section: Section, dtype: torch.dtype | None = None) -> Wav2Vec2BertModel:
    """A model of random weights, made where it runs; norms and positions are random too."""
    torch.manual_seed(0)
    with torch.device(section.device):
        model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**section.fields)).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)
    return model.to(dtype or section.dtype).requires_grad_(False)


def peer_of(model: Wav2Vec2BertModel) -> Any:
    """The peer's model with the same weights."""
    import transformers

    config = transformers.Wav2Vec2BertConfig.from_dict(model.config.to_dict())
    with torch.device(model.device):
        peer = transformers.Wav2Vec2BertModel(config).eval()
    peer = peer.to(model.dtype).requires_grad_(False)
    peer.load_state_dict(model.state_dict())
    return peer


def mixes(section: Section) -> dict[str, list[int]]:
    """Frames of the clips of four corpora, each of as much audio; drawn with a seed."""
    random = torch.Generator().manual_seed(0)
    total = 200 if section.smoke else TOTAL
    shrink = 20 if section.smoke else 1

    def fill(draw: Callable[[], float]) -> list[int]:
        lengths: list[int] = []
        while sum(lengths) < total:
            lengths.append(max(1, round(FRAMES_A_SECOND * draw() / shrink)))
        return lengths

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    def books() -> float:  # as in LibriSpeech: many near 15 s, a tail of short ones
        return uniform(12, 17) if uniform(0, 1) < 0.7 else uniform(1.5, 12)

    return {
        "10 s": fill(lambda: 10.0),
        "books": fill(books),
        "2-8 s": fill(lambda: uniform(2, 8)),
        "40 s windows": fill(lambda: 40.0),
    }


def clips_of(lengths: Sequence[int], section: Section) -> list[Tensor]:
    """Features of clips, (frames, 160) each, on the device."""
    generator = torch.Generator(section.device).manual_seed(1)
    joined = torch.randn(sum(lengths), 160, generator=generator, device=section.device)
    return list(joined.to(section.dtype).split(list(lengths)))


def packs_of(clips: Sequence[Tensor], budget: int = BUDGET) -> list[Packed]:
    """As a model actor packs them: sorted by length, under a budget of frames."""
    packs: list[list[Tensor]] = [[]]
    for clip in sorted(clips, key=len):
        if packs[-1] and sum(map(len, packs[-1])) + len(clip) > budget:
            packs.append([])
        packs[-1].append(clip)
    return [Packed.from_sequences(pack) for pack in packs]


def encode_all(model: Wav2Vec2BertModel, packs: Sequence[Packed]) -> list[Tensor]:
    """With a partly filled last frame in every clip of an odd length, as audio has it."""
    return [
        model.encode(
            pack, num_valid=[max(1, length - length % 2) for length in pack.lengths]
        ).last_hidden_state.frames
        for pack in packs
    ]


@dataclass(frozen=True)
class Batch:
    """Clips of the peer, padded: (batch, longest, 160), and the mask."""

    features: Tensor
    mask: Tensor


def batches_of(clips: Sequence[Tensor], size: int) -> list[Batch]:
    """Sorted by length, which is the peer's best case."""
    ordered = sorted(clips, key=len)
    made = []
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        lengths = torch.tensor([len(clip) for clip in some], device=some[0].device)
        features = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
        made.append(
            Batch(features, torch.arange(features.shape[1], device=lengths.device) < lengths[:, None])
        )
    return made


def flops(config: Wav2Vec2BertConfig, lengths: Sequence[int]) -> float:
    """Of one pass over clips: products of matrices, the convolution and attention, nothing on padding."""
    width, wide = config.hidden_size, config.intermediate_size
    distances = config.left_max_position_embeddings + config.right_max_position_embeddings + 1
    a_frame = 2 * (2 * 2 * width * wide + 4 * width**2 + 3 * width**2)
    a_frame += 2 * width * (config.conv_depthwise_kernel_size + distances)
    pairs = sum(length**2 for length in lengths)
    return float(config.num_hidden_layers * (a_frame * sum(lengths) + 4 * width * pairs))
