"""The four usual lines of accelerate, with and without bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import w2vbert
from tests.dropin.models import clips, collate, untrained_twins

pytestmark = pytest.mark.slow


def run(model: Any, precision: str, steps: int = 20) -> tuple[list[float], Accelerator, Any]:
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=precision, cpu=True)
    loader = torch.utils.data.DataLoader(clips(8), batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    curve: list[float] = []
    while len(curve) < steps:
        for batch in loader:
            output = model(**batch)
            accelerator.backward(output.loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            curve.append(output.loss.item())
            assert output.logits.dtype == torch.float32
    return curve[:steps], accelerator, model


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_losses_are_the_peer_s(precision: str, tmp_path: Path) -> None:
    ours, peer = untrained_twins(w2vbert.Wav2Vec2BertForCTC)
    mine, accelerator, model = run(ours, precision)
    accelerator.unwrap_model(model).save_pretrained(
        tmp_path,
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )
    its, _, _ = run(peer, precision)
    np.testing.assert_allclose(mine, its, rtol=1e-3)
    assert sum(mine[-2:]) < sum(mine[:2])
    again = w2vbert.Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    for name, weight in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
