"""Kernels against float32: one layer's parts on hard lengths, a whole model, and neighbours in a pack."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from bench.gpu.compiled import use_compiled
from bench.gpu.flex import use_flex
from bench.gpu.models import backend, build, clips_of, encode_all, packs_of
from bench.gpu.section import Section, run
from w2vbert.encoder.layout import Layout
from w2vbert.model import Wav2Vec2BertModel


def measure(section: Section) -> None:
    with torch.inference_mode():
        model = build(section)
        exact = build(section, torch.float32)
        exact.load_state_dict(model.state_dict())
        for dtype, layered in ((torch.float32, exact), (section.dtype, model)):
            _parts(section, layered, exact, dtype)
        _whole(section, model, exact)
        _neighbours(section, model)


def hard_lengths(section: Section) -> list[list[int]]:
    if section.smoke:
        return [[1], [40, 1, 17]]
    random = torch.randint(1, 800, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    return [[1], [2000], [127, 128, 129, 1, 64, 65, 2000], random, [500] * 130]


def _parts(section: Section, model: Wav2Vec2BertModel, exact: Wav2Vec2BertModel, dtype: torch.dtype) -> None:
    """Attention and convolution of the first layer; memory that kernels are given is full of NaN."""
    for lengths in hard_lengths(section):
        frames = torch.randn(sum(lengths), model.config.hidden_size, device=section.device).to(dtype)
        num_valid = [max(1, length - (row % 2)) for row, length in enumerate(lengths)]
        results: dict[str, dict[str, Tensor]] = {}
        for name, used, backed in (
            ("exact", exact, "torch"),
            ("torch", model, "torch"),
            ("triton", model, "triton"),
        ):
            with backend(backed):
                results[name] = _run(
                    section, used, frames.float() if name == "exact" else frames, (lengths, num_valid)
                )
        with backend("triton"):
            again = _run(section, model, frames, (lengths, num_valid))
        for part in ("attention", "convolution"):
            section.add(
                what=part,
                dtype=str(dtype).removeprefix("torch."),
                clips=len(lengths),
                longest=max(lengths),
                torch=_apart(results["torch"][part], results["exact"][part]),
                triton=_apart(results["triton"][part], results["exact"][part]),
                same_twice=torch.equal(results["triton"][part], again[part]),
            )


def _run(
    section: Section, model: Wav2Vec2BertModel, frames: Tensor, lengths: tuple[list[int], list[int]]
) -> dict[str, Tensor]:
    layout = Layout(lengths[0], section.device, num_valid=lengths[1])
    layer: Any = model.encoder.layers[0]
    poison = [torch.full_like(frames, torch.nan) for _ in range(8)]
    del poison  # the next tensors of this size lie where it lay
    attended, _ = layer.self_attn(frames, layout)
    return {"attention": attended, "convolution": layer.conv_module(frames, layout)}


def _whole(section: Section, model: Wav2Vec2BertModel, exact: Wav2Vec2BertModel) -> None:
    clips = clips_of(hard_lengths(section)[-1][:40], section)
    packs = packs_of(clips)
    with backend("torch"):
        wanted = encode_all(exact, [pack.with_frames(pack.frames.float()) for pack in packs])[0]
    compiler = "eager" if section.smoke else "inductor"
    contenders = {
        "torch": (model, "torch"),
        "triton": (model, "triton"),
        "triton, compiled": (use_compiled(copy.deepcopy(model), compiler=compiler), "triton"),
        "flex": (use_flex(copy.deepcopy(model), compile=not section.smoke), "triton"),
    }
    for name, (used, backed) in contenders.items():
        try:
            with backend(backed):
                section.add(what="model", contender=name, error=_apart(encode_all(used, packs)[0], wanted))
        except Exception as problem:  # one contender's failure is not another's
            section.add(what="model", contender=name, failed=f"{type(problem).__name__}: {problem}"[:300])


def _neighbours(section: Section, model: Wav2Vec2BertModel) -> None:
    """How many clips read otherwise alone than among others, by the best path of a random head."""
    lengths = ([9, 4, 12] if section.smoke else [150, 500, 333, 721]) * 4
    clips = clips_of(lengths, section)
    head = torch.randn(model.config.hidden_size, 32, device=section.device).to(section.dtype)
    for backed in ("torch", "triton"):
        with backend(backed):
            alone = [(encode_all(model, packs_of([clip]))[0] @ head).argmax(-1) for clip in clips]
            (pack,) = packs_of(clips)
            among = (encode_all(model, [pack])[0] @ head).argmax(-1).split(sorted(lengths))
        order = sorted(range(len(clips)), key=lambda number: lengths[number])
        differ = [int((alone[n] != one).sum()) for n, one in zip(order, among, strict=True)]
        section.add(
            what="neighbours",
            backend=backed,
            clips=len(clips),
            changed=sum(map(bool, differ)),
            frames=sum(lengths),
            frames_changed=sum(differ),
        )


def _apart(given: Tensor, wanted: Tensor) -> float:
    """Of all numbers together, relative; NaN where one is."""
    given, wanted = given.double(), wanted.double()
    return float(f"{float((given - wanted).norm() / wanted.norm()):.3g}")


if __name__ == "__main__":
    run("parity", measure)
