"""The four task models against the peer's: outputs, and what they look like."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.parity.configs import POSITIONS, batch, pair, peer_config, random_config, valid
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.heads.task import TaskModel

TASKS = (
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForXVector,
)
CASES = [
    pytest.param(task, positions, 1000 * TASKS.index(task) + 10 * POSITIONS.index(positions) + draw,
                 id=f"{task.__name__.removeprefix('Wav2Vec2BertFor')}-{positions}-{draw}")
    for task in TASKS for positions in POSITIONS for draw in range(3)
]  # fmt: skip
CLIPS = [47, 30, 61]


def task_config(task: type[TaskModel], seed: int, **fixed: Any) -> Wav2Vec2BertConfig:
    """A random small configuration for a task, with an adapter where the task takes one."""
    rng = random.Random(seed)
    weighted = fixed.pop("use_weighted_layer_sum", rng.random() < 0.5)
    drawn: dict[str, Any] = {
        "use_weighted_layer_sum": weighted,
        "add_adapter": False,
        "num_labels": rng.choice([2, 3, 7]),
    }
    if task is Wav2Vec2BertForCTC:
        size = rng.choice([5, 9])
        drawn |= {"vocab_size": size, "pad_token_id": rng.randrange(size), "add_adapter": rng.random() < 0.5}
    elif task is Wav2Vec2BertForSequenceClassification:
        drawn["classifier_proj_size"] = rng.choice([3, 8])
    elif task is Wav2Vec2BertForXVector:
        drawn |= {
            "tdnn_dim": rng.choice([(6, 4, 5), (3, 8, 7)]),
            "tdnn_kernel": rng.choice([(3, 2, 1), (2, 3, 2)]),
            "tdnn_dilation": rng.choice([(1, 2, 1), (1, 1, 1), (2, 1, 3)]),
            "xvector_output_dim": rng.choice([4, 9]),
            "add_adapter": rng.random() < 0.5,
        }
        if drawn["add_adapter"]:  # the peer's head cannot follow an adapter of another width, or two
            drawn["num_adapter_layers"] = 1
            drawn["output_hidden_size"] = None
    config = random_config(seed, **{**drawn, **fixed})
    if task is Wav2Vec2BertForXVector:
        config.output_hidden_size = config.hidden_size
    return config


def main_output(output: Any) -> Tensor:
    return output.embeddings if hasattr(output, "embeddings") else output.logits


def clips_alone(model: nn.Module, features: Tensor, lengths: list[int]) -> list[Any]:
    """What a model says of each clip by itself."""
    return [model(features[row : row + 1, :length]) for row, length in enumerate(lengths)]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "positions", "seed"), CASES)
@torch.no_grad()
def test_each_clip_of_a_batch_is_what_the_peer_says_of_it_alone(
    task: type[TaskModel], positions: str | None, seed: int
) -> None:
    config = task_config(task, seed, position_embeddings_type=positions)
    ours, peer = pair(task, config, seed)
    features, mask = batch(config, CLIPS, seed, extra=seed % 3)
    mine = ours(features, mask)
    for row, theirs in enumerate(clips_alone(peer, features, CLIPS)):
        for name in ("logits", "embeddings"):
            if not hasattr(theirs, name):
                continue
            expected = getattr(theirs, name)[0]
            clip = getattr(mine, name)[row]
            clip = clip[: len(expected)] if clip.dim() == 2 else clip
            torch.testing.assert_close(clip, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS[:3])
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_padded_batch_as_the_peer_runs_it(task: type[TaskModel], seed: int) -> None:
    config = task_config(task, seed, add_adapter=False)
    ours, peer = pair(task, config, seed)
    features, mask = batch(config, CLIPS, seed, extra=2)
    mine, theirs = (model(features, attention_mask=mask).logits for model in (ours, peer))
    assert mine.shape == theirs.shape
    if mine.dim() == 3:
        mine, theirs = valid(mine, CLIPS), valid(theirs, CLIPS)
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
@torch.no_grad()
def test_masks_of_any_type(task: type[TaskModel], dtype: torch.dtype) -> None:
    config = task_config(task, 1)
    ours, _ = pair(task, config)
    features, mask = batch(config, CLIPS)
    expected = main_output(ours(features, mask))
    assert torch.equal(main_output(ours(features, mask.to(dtype))), expected)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("asked", ["", "output_hidden_states", "output_attentions"])
@torch.no_grad()
def test_shape_of_the_output(task: type[TaskModel], weighted: bool, asked: str) -> None:
    """The same fields in the same order, as attributes and as a tuple."""
    config = task_config(task, 2, use_weighted_layer_sum=weighted, add_adapter=False)
    ours, peer = pair(task, config)
    peer.set_attn_implementation("eager")
    features, mask = batch(config, [25, 20], extra=2)
    options = {asked: True} if asked else {}
    mine, theirs = (model(features, attention_mask=mask, **options) for model in (ours, peer))
    assert list(mine.keys()) == list(theirs.keys())
    as_tuple = ours(features, attention_mask=mask, return_dict=False, **options)
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == len(theirs.to_tuple())
    assert torch.equal(as_tuple[0], mine.logits)
    assert torch.equal(mine[0], mine["logits"])
    if asked:
        name = asked.removeprefix("output_")
        assert [state.shape for state in mine[name]] == [state.shape for state in theirs[name]]
    if asked == "output_hidden_states":
        for state, expected in zip(mine.hidden_states, theirs.hidden_states, strict=True):
            torch.testing.assert_close(
                valid(state, [25, 20]), valid(expected, [25, 20]), atol=2e-5, rtol=1e-4
            )


def test_outputs_asked_for_in_the_configuration() -> None:
    config = task_config(Wav2Vec2BertForCTC, 3, output_hidden_states=True, return_dict=False)
    model = Wav2Vec2BertForCTC(config).eval()
    features, _ = batch(config, [12])
    logits, states = model(features)
    assert len(states) == config.num_hidden_layers + 1
    assert model(features, return_dict=True).logits.shape == logits.shape


@torch.no_grad()
def test_padding_of_ctc_logits_reads_as_blank() -> None:
    """Best path over the whole padded row: the clip's own tokens, then blanks."""
    config = task_config(Wav2Vec2BertForCTC, 4, vocab_size=6, pad_token_id=5, add_adapter=False)
    ours, _ = pair(Wav2Vec2BertForCTC, config)
    features, mask = batch(config, CLIPS, extra=3)
    best = ours(features, mask).logits.argmax(-1)
    assert best.shape[1] == features.shape[1]
    for row, alone in enumerate(clips_alone(ours, features, CLIPS)):
        tokens = alone.logits[0].argmax(-1)
        assert len(tokens.unique()) > 1
        assert torch.equal(best[row, : len(tokens)], tokens)
        assert (best[row, len(tokens) :] == config.pad_token_id).all()


@torch.no_grad()
def test_padding_of_frame_logits_is_zero() -> None:
    config = task_config(Wav2Vec2BertForAudioFrameClassification, 5)
    ours, _ = pair(Wav2Vec2BertForAudioFrameClassification, config)
    features, mask = batch(config, CLIPS, extra=2)
    assert not ours(features, mask).logits[mask == 0].any()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weighted", [False, True])
def test_state_dict_has_the_published_names_at_full_size(task: type[TaskModel], weighted: bool) -> None:
    config = Wav2Vec2BertConfig(vocab_size=32, num_labels=6, use_weighted_layer_sum=weighted)
    with torch.device("meta"):
        models = task(config), getattr(transformers, task.__name__)(peer_config(config))
    mine, theirs = ({name: tensor.shape for name, tensor in m.state_dict().items()} for m in models)
    assert mine == theirs


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_initial_weights_of_the_head(task: type[TaskModel]) -> None:
    """Deviation of every weight of the head as the peer draws it."""
    config = task_config(
        task, 6, hidden_size=40, num_attention_heads=2, num_labels=30, vocab_size=40, add_adapter=False,
        classifier_proj_size=32, tdnn_dim=(32, 32), tdnn_kernel=(3, 1), tdnn_dilation=(1, 1),
        xvector_output_dim=32, use_weighted_layer_sum=True, initializer_range=0.05,
    )  # fmt: skip
    config.output_hidden_size = config.hidden_size
    torch.manual_seed(0)
    ours, peer = task(config), getattr(transformers, task.__name__)(peer_config(config))
    expected = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        if name.startswith("wav2vec2_bert."):
            continue
        deviation = expected[name].std().item()
        assert parameter.std().item() == pytest.approx(deviation, rel=0.2, abs=1e-8), name
        assert parameter.mean().item() == pytest.approx(
            expected[name].mean().item(), abs=0.2 * deviation + 1e-8
        )
