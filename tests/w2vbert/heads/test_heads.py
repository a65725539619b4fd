"""The heads as the pipeline calls them, in pieces; and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.encoder.adapter import ClipTooShortError
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.heads.losses import AMSoftmaxLoss, clip_loss, ctc_loss, frame_loss
from w2vbert.heads.moments import Moments
from w2vbert.heads.task import TaskModel
from w2vbert.packing import Packed

TASKS = (
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForXVector,
)
LENGTHS = (33, 19, 26)


def config(**fields: Any) -> Wav2Vec2BertConfig:
    small: dict[str, Any] = {
        "vocab_size": 6,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "feature_projection_input_dim": 10,
        "conv_depthwise_kernel_size": 5,
        "classifier_proj_size": 7,
        "tdnn_dim": (8, 6, 9),
        "tdnn_kernel": (3, 2, 1),
        "tdnn_dilation": (1, 3, 1),
        "xvector_output_dim": 5,
        "num_labels": 3,
    }
    return Wav2Vec2BertConfig(**{**small, **fields})


def build(task: type[TaskModel], **fields: Any) -> Any:
    """A model in evaluation mode whose head is large enough for differences to show."""
    torch.manual_seed(0)
    model = task(config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


def features(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> Packed:
    generator = torch.Generator().manual_seed(seed)
    return Packed(torch.randn(sum(lengths), 10, generator=generator), lengths)


def pieces(frames: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """Cut frames into pieces of these sizes, which may be zero, and a last one with the rest."""
    start = 0
    for size in sizes:
        yield frames[start : start + size]
        start += size
    yield frames[start:]


@pytest.mark.parametrize("task", [Wav2Vec2BertForCTC, Wav2Vec2BertForAudioFrameClassification])
@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_frame_logits_are_those_of_forward(task: type[TaskModel], weighted: bool) -> None:
    model = build(task, use_weighted_layer_sum=weighted)
    packed = features()
    encoding = model.wav2vec2_bert.encode(packed, output_hidden_states=model.needs_hidden_states)
    logits = model.frame_logits(encoding)
    assert logits.lengths == LENGTHS
    expected = Packed.from_padded(model(packed.pad(), packed.mask()).logits, packed.mask())
    torch.testing.assert_close(logits.frames, expected.frames, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 60), min_size=2, max_size=5),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours(
    task: type[TaskModel], lengths: list[int], weighted: bool, seed: int
) -> None:
    model = build(task, use_weighted_layer_sum=weighted)
    packed = features(tuple(lengths), seed)
    noise = torch.randn(len(lengths), max(lengths), 10, generator=torch.Generator().manual_seed(seed))
    padded = torch.where(packed.mask()[..., None], packed.pad(), 1e3 * noise)
    together = model(padded, packed.mask())
    for row, clip in enumerate(packed.split()):
        alone = model(clip[None])
        for name in {"logits", "embeddings"} & alone.keys():
            expected = alone[name][0]
            shared = together[name][row][: len(expected)]
            torch.testing.assert_close(shared, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 20), max_size=8), weighted=st.booleans())
@torch.no_grad()
def test_mean_pooling_in_any_pieces(sizes: list[int], weighted: bool) -> None:
    model = build(Wav2Vec2BertForSequenceClassification, use_weighted_layer_sum=weighted)
    packed = features()
    encoding = model.wav2vec2_bert.encode(packed, output_hidden_states=model.needs_hidden_states)
    expected = model(packed.pad(), packed.mask()).logits
    for row, clip in enumerate(model.project(encoding).split()):
        pooling = model.pooling()
        for piece in pieces(clip, sizes):
            pooling.add(piece)
        torch.testing.assert_close(pooling.finish(), expected[row], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), max_size=8),
    weighted=st.booleans(),
    tdnn=st.sampled_from(
        [((3, 2, 1), (1, 3, 1)), ((1, 1, 1), (1, 1, 1)), ((5, 3, 3), (1, 2, 3)), ((2, 2, 2), (4, 1, 2))]
    ),
)
@torch.no_grad()
def test_statistics_pooling_in_any_pieces(sizes: list[int], weighted: bool, tdnn: Any) -> None:
    kernel, dilation = tdnn
    model = build(
        Wav2Vec2BertForXVector, use_weighted_layer_sum=weighted, tdnn_kernel=kernel, tdnn_dilation=dilation
    )
    packed = features()
    encoding = model.wav2vec2_bert.encode(packed, output_hidden_states=model.needs_hidden_states)
    expected = model(packed.pad(), packed.mask())
    for row, clip in enumerate(model.project(encoding).split()):
        pooling = model.pooling()
        for piece in pieces(clip, sizes):
            pooling.add(piece)
        vector = pooling.finish()
        torch.testing.assert_close(vector.embedding, expected.embeddings[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(vector.logits, expected.logits[row], atol=1e-5, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    scale=st.sampled_from([1e-3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_moments_are_stable(sizes: list[int], offset: float, scale: float, seed: int) -> None:
    """Against float64, also where the mean dwarfs the deviation."""
    generator = torch.Generator().manual_seed(seed)
    frames = (torch.randn(sum(sizes) + 2, 4, generator=generator) * scale + offset).float()
    moments = Moments()
    for piece in pieces(frames, sizes):
        moments.add(piece)
    exact = frames.double()
    rounding = offset * 2**-22
    torch.testing.assert_close(moments.mean.double(), exact.mean(0), atol=rounding + 1e-7, rtol=1e-5)
    torch.testing.assert_close(moments.deviation().double(), exact.std(0), atol=rounding + 1e-7, rtol=1e-4)


@torch.no_grad()
def test_pooling_holds_little() -> None:
    """What stays between two pieces does not grow, and is no view of a piece."""
    model = build(Wav2Vec2BertForXVector)
    projected = model.project(model.wav2vec2_bert.encode(features((200,)))).frames
    pooling = model.pooling()
    pooling.add(projected)
    assert len(pooling._tail) == model.context
    assert pooling._tail.untyped_storage().nbytes() == pooling._tail.nbytes


def test_moments_of_half_precision_are_kept_in_fp32() -> None:
    """bf16 sums would be off in the third digit."""
    frames = (1 + 0.1 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    moments = Moments()
    for piece in frames.split(7):
        moments.add(piece)
    torch.testing.assert_close(moments.mean.double(), frames.double().mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(moments.deviation().double(), frames.double().std(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", [Wav2Vec2BertForSequenceClassification, Wav2Vec2BertForXVector])
@torch.no_grad()
def test_pooling_in_half_precision(task: type[TaskModel]) -> None:
    model = build(task).bfloat16()
    projected = model.project(
        model.wav2vec2_bert.encode(features().with_frames(features().frames.bfloat16()))
    )
    pooling = model.pooling()
    pooling.add(projected.split()[0])
    result = pooling.finish()
    logits = result if task is Wav2Vec2BertForSequenceClassification else result.logits
    assert logits.dtype == torch.bfloat16
    expected = model(features().pad().bfloat16(), features().mask()).logits[0]
    torch.testing.assert_close(logits, expected, atol=0.03, rtol=0.03)


def test_dropout_before_the_ctc_head_is_for_training() -> None:
    model = build(Wav2Vec2BertForCTC, final_dropout=0.5, layerdrop=0.0, apply_spec_augment=False)
    encoding = model.wav2vec2_bert.encode(features())
    expected = model.lm_head(encoding.last_hidden_state.frames)
    assert torch.equal(model.frame_logits(encoding).frames, expected)
    model.train()
    torch.manual_seed(1)
    dropped = model.frame_logits(encoding).frames
    torch.manual_seed(1)
    kept = torch.nn.functional.dropout(encoding.last_hidden_state.frames, 0.5)
    assert torch.equal(dropped, model.lm_head(kept))
    assert not torch.allclose(dropped, expected)


# A clip of minimum_frames is the shortest with a vector; below that there is an error, never NaN.


def test_shortest_clip_with_a_vector() -> None:
    model = build(Wav2Vec2BertForXVector)
    assert model.context == 2 * 1 + 1 * 3
    assert model.minimum_frames == 7
    shortest = features((7, 30))
    output = model(shortest.pad(), shortest.mask(), labels=torch.tensor([0, 1]))
    assert output.embeddings.isfinite().all()
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    too_short = features((30, 6))
    with pytest.raises(ClipTooShortError, match="clip 1 of the batch has 6 frames, but an x-vector needs 7"):
        model(too_short.pad(), too_short.mask())


@torch.no_grad()
def test_pooling_of_too_few_frames() -> None:
    pooling = build(Wav2Vec2BertForXVector).pooling()
    for _ in range(6):
        pooling.add(torch.zeros(1, 8))
    with pytest.raises(ClipTooShortError, match="the clip has 6 frames, but an x-vector needs 7"):
        pooling.finish()
    with pytest.raises(ClipTooShortError, match="no frames"):
        build(Wav2Vec2BertForSequenceClassification).pooling().finish()


def test_silence_has_finite_gradients() -> None:
    """Frames that are all alike have no deviation; the square root of zero has no finite slope."""
    model = build(Wav2Vec2BertForXVector)
    model(torch.zeros(2, 12, 10), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_encoding_without_the_states_that_the_head_weighs() -> None:
    model = build(Wav2Vec2BertForXVector, use_weighted_layer_sum=True)
    with pytest.raises(ValueError, match="output_hidden_states=True"):
        model.project(model.wav2vec2_bert.encode(features()))


@pytest.mark.parametrize(
    ("task", "fields", "field"),
    [
        (Wav2Vec2BertForCTC, {"vocab_size": None}, "vocab_size"),
        (Wav2Vec2BertForCTC, {"pad_token_id": None}, "pad_token_id"),
        (Wav2Vec2BertForCTC, {"pad_token_id": 6}, "pad_token_id"),
        (Wav2Vec2BertForSequenceClassification, {"add_adapter": True}, "add_adapter"),
        (Wav2Vec2BertForAudioFrameClassification, {"add_adapter": True}, "add_adapter"),
        (Wav2Vec2BertForAudioFrameClassification, {"problem_type": "regression"}, "problem_type"),
    ],
)
def test_configurations_that_a_task_does_not_take(
    task: type[TaskModel], fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        task(config(**fields))


# Labels that a loss does not take.


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 6], [2, 3]], "token 6; tokens are 0 to 5"),
        ([[1, -1], [2, 3]], "token -1"),
        ([[1, 2]], "batch = 2"),
        ([1, 2], "target_length"),
    ],
)
def test_ctc_labels(labels: Any, message: str) -> None:
    logits = Packed(torch.zeros(9, 6), (5, 4))
    with pytest.raises(ValueError, match=message):
        ctc_loss(logits, torch.tensor(labels), blank=0, reduction="sum", zero_infinity=False)


def test_other_labels() -> None:
    with pytest.raises(ValueError, match="takes 6 numbers for 2 clips"):
        clip_loss(torch.zeros(2, 3), torch.zeros(2), "multi_label_classification")
    with pytest.raises(ValueError, match=r"\(2, 5, 3\)"):
        frame_loss(Packed(torch.zeros(9, 3), (5, 4)), torch.zeros(2, 4, 3), None)
    with pytest.raises(ValueError, match=r"2 indices below 3, are \[0, 3\]"):
        AMSoftmaxLoss(4, 3)(torch.zeros(2, 4), torch.tensor([0, 3]))


def test_am_softmax_by_hand() -> None:
    """Vectors at a right angle: cosines 1 and 0, the right class less the margin, times 30."""
    loss = AMSoftmaxLoss(2, 2)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    wrong = loss(torch.tensor([[0.0, 3.0]]), torch.tensor([0]))
    assert wrong.item() == pytest.approx(30 * 1.4, abs=1e-4)
    right = loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    assert right.item() == pytest.approx(torch.tensor(-30 * 0.6).exp().log1p().item(), abs=1e-7)


def test_frame_loss_without_annotated_frames_is_zero() -> None:
    logits = torch.zeros(4, 2, requires_grad=True)
    for problem_type in ("single_label_classification", "multi_label_classification"):
        loss = frame_loss(Packed(logits, (4,)), torch.full((1, 4, 2), -100), problem_type)  # type: ignore[arg-type]
        assert loss.item() == 0
        loss.backward()
    assert not logits.grad.any()  # type: ignore[union-attr]
