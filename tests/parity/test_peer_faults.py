"""Known faults of the peer in heads, losses, masks and loading: each fails there and works here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import _compute_mask_indices

from tests.parity.configs import batch, pair, peer_config, random_config
from tests.parity.test_heads import clips_alone, task_config
from w2vbert.encoder.adapter import ClipTooShortError
from w2vbert.encoder.masking import span_mask
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.model import Wav2Vec2BertModel

LENGTHS = [60, 31]


def relative_error(measured: Tensor, exact: Tensor) -> float:
    return ((measured - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dilation", [(1, 2, 3), (1, 1, 1)])
@torch.no_grad()
def test_xvector_in_a_padded_batch(dilation: tuple[int, ...]) -> None:
    """The peer's pooling forgets the dilation, so it averages over frames that come from padding."""
    config = task_config(
        Wav2Vec2BertForXVector, 31, add_adapter=False, tdnn_dim=(12, 12, 12), tdnn_kernel=(5, 3, 3),
        tdnn_dilation=dilation,
    )  # fmt: skip
    ours, peer = pair(Wav2Vec2BertForXVector, config)
    features, mask = batch(config, LENGTHS)
    exact = clips_alone(peer, features, LENGTHS)[1].embeddings[0]
    mine, theirs = (model(features, attention_mask=mask).embeddings[1] for model in (ours, peer))
    assert relative_error(mine, exact) < 1e-5
    if dilation == (1, 1, 1):
        assert relative_error(theirs, exact) < 1e-5
    else:
        assert relative_error(theirs, exact) > 1e-3


def test_xvector_of_a_clip_that_is_too_short() -> None:
    """The peer gives the deviation of one frame, NaN; here an error says how long a clip must be."""
    config = task_config(Wav2Vec2BertForXVector, 32, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertForXVector, config)
    features, _ = batch(config, [ours.minimum_frames])
    assert ours(features).embeddings.isfinite().all()
    assert peer(features[:, 1:]).embeddings.isnan().all()
    with pytest.raises(ClipTooShortError, match=f"needs {ours.minimum_frames}"):
        ours(features[:, 1:])


def test_regression() -> None:
    """Documented as mean square error for one label; the peer's cross-entropy over one class is zero."""
    config = task_config(Wav2Vec2BertForSequenceClassification, 33, num_labels=1)
    ours, peer = pair(Wav2Vec2BertForSequenceClassification, config)
    features, mask = batch(config, LENGTHS)
    assert peer(features, attention_mask=mask, labels=torch.tensor([0, 0])).loss == 0
    targets = torch.tensor([0.5, -2.0])
    output = ours(features, mask, labels=targets)
    assert output.loss.item() == pytest.approx(((output.logits[:, 0] - targets) ** 2).mean().item(), rel=1e-6)
    assert output.loss > 0


@pytest.mark.parametrize("problem_type", ["multi_label_classification", None])
def test_several_labels_at_once(problem_type: Any) -> None:
    config = task_config(Wav2Vec2BertForSequenceClassification, 34, num_labels=3, problem_type=problem_type)
    ours, peer = pair(Wav2Vec2BertForSequenceClassification, config)
    features, mask = batch(config, LENGTHS)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="batch_size"):
        peer(features, attention_mask=mask, labels=labels)
    output = ours(features, mask, labels=labels)
    chances = output.logits.sigmoid()
    by_hand = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    assert output.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "single_label_classification"])
def test_frame_labels_of_padding_do_not_count(problem_type: Any) -> None:
    """The peer learns from padding, and takes two speakers at once for the first of them."""
    config = task_config(Wav2Vec2BertForAudioFrameClassification, 35, num_labels=2, problem_type=problem_type)
    ours, peer = pair(Wav2Vec2BertForAudioFrameClassification, config)
    features, mask = batch(config, LENGTHS)
    speech = torch.randint(2, (2, max(LENGTHS), 2), generator=torch.Generator().manual_seed(0))
    # The same frames with other labels on the padding, and with both speakers where only the first was.
    padding = torch.where(mask[..., None] > 0, speech, 1 - speech)
    overlap = torch.where(speech[..., :1] > 0, 1, speech)

    def loss(model: Any, labels: Tensor) -> float:
        return model(features, attention_mask=mask, labels=labels).loss.item()

    assert loss(ours, padding) == loss(ours, speech)
    assert loss(peer, padding) != pytest.approx(loss(peer, speech), rel=1e-4)
    assert loss(peer, overlap) == pytest.approx(loss(peer, speech), rel=1e-6)
    if problem_type == "single_label_classification":
        assert loss(ours, overlap) == loss(ours, speech)
        return
    assert loss(ours, overlap) != pytest.approx(loss(ours, speech), rel=1e-4)
    logits, valid = ours(features, mask).logits, mask > 0
    by_hand = F.binary_cross_entropy_with_logits(logits[valid], speech[valid].float())
    assert loss(ours, speech) == pytest.approx(by_hand.item(), rel=1e-6)


def numpy_generator() -> tuple[bytes, int]:
    """State of NumPy's global generator: its words, which change every 624 draws, and the place in them."""
    _, words, position, *_ = np.random.get_state()
    return words.tobytes(), position


def test_span_masks_leave_the_global_generators_alone() -> None:
    """The peer draws from NumPy's global generator, which torch.manual_seed does not reach."""
    numpy_state, torch_state = numpy_generator(), torch.get_rng_state()
    span_mask([50, 30], 0.5, 5, generator=torch.Generator().manual_seed(1))
    assert numpy_generator() == numpy_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    _compute_mask_indices((2, 50), 0.5, 5)
    assert numpy_generator() != numpy_state


def test_given_masks_without_a_mask_probability() -> None:
    """The peer has no mask vector then, and fails; here masked frames are zero."""
    config = random_config(36, apply_spec_augment=True, mask_time_prob=0.0, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertModel, config)
    features, mask = batch(config, LENGTHS)
    chosen = torch.zeros(mask.shape, dtype=torch.bool)
    chosen[:, 4:9] = True
    with pytest.raises(AttributeError, match="masked_spec_embed"):
        peer(features, attention_mask=mask, mask_time_indices=chosen)
    state = ours(features, mask, mask_time_indices=chosen, output_hidden_states=True).hidden_states[0]
    assert not state[:, 4:9].any()
    assert state[:, 9:30].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_given_masks_of_any_type(dtype: torch.dtype) -> None:
    config = random_config(37, apply_spec_augment=True, mask_time_prob=0.1, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertModel, config)
    features, mask = batch(config, LENGTHS)
    chosen = torch.zeros(mask.shape)
    chosen[:, 4:9] = 1
    expected = ours(features, mask, mask_time_indices=chosen.bool()).last_hidden_state
    assert torch.equal(ours(features, mask, mask_time_indices=chosen.to(dtype)).last_hidden_state, expected)
    if dtype == torch.float32:
        with pytest.raises(IndexError):
            peer(features, attention_mask=mask, mask_time_indices=chosen)


def test_training_on_a_clip_shorter_than_a_mask() -> None:
    config = task_config(
        Wav2Vec2BertForCTC, 38, apply_spec_augment=True, mask_time_prob=0.05, mask_time_length=10,
        add_adapter=False,
    )  # fmt: skip
    ours, peer = (model.train() for model in pair(Wav2Vec2BertForCTC, config))
    features, mask = batch(config, [9, 6])
    labels = torch.tensor([[1, 2], [2, 1]])
    with pytest.raises(ValueError, match="mask_length"):
        peer(features, attention_mask=mask, labels=labels)
    loss = ours(features, mask, labels=labels).loss
    loss.backward()
    assert loss.isfinite()


def save_with_language(folder: Path) -> Wav2Vec2BertForCTC:
    model, _ = pair(Wav2Vec2BertForCTC, task_config(Wav2Vec2BertForCTC, 39, add_adapter=False))
    model.save_pretrained(folder)
    head = {f"lm_head.{name}": tensor + 1.0 for name, tensor in model.lm_head.state_dict().items()}
    save_file(head, folder / "adapter.fra.safetensors")
    return model


def test_target_language(tmp_path: Path) -> None:
    """Documented by the peer, which takes it and does nothing."""
    model = save_with_language(tmp_path)
    peer = transformers.Wav2Vec2BertForCTC.from_pretrained(tmp_path, target_lang="fra")
    assert torch.equal(peer.lm_head.bias, model.lm_head.bias)
    ours = Wav2Vec2BertForCTC.from_pretrained(tmp_path, target_lang="fra")
    assert torch.equal(ours.lm_head.bias, model.lm_head.bias + 1.0)
    with pytest.raises(OSError, match=r"adapter\.deu\.safetensors"):
        Wav2Vec2BertForCTC.from_pretrained(tmp_path, target_lang="deu")


def test_open_vocabulary_size(tmp_path: Path) -> None:
    """Published encoders have `vocab_size: null`; the tokenizer beside the checkpoint knows it."""
    config = random_config(40, vocab_size=None, add_adapter=False)
    transformers.Wav2Vec2BertModel(peer_config(config)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] is None
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocabulary))
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="vocabulary size"):
        transformers.Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    ours = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    assert ours.lm_head.out_features == ours.config.vocab_size == len(tokenizer)
