"""The moving average of the weights."""

import torch

from pipeline.training.optimiser.average import Average


def test_the_average_follows_the_weights() -> None:
    weight = torch.tensor([0.0])
    average = Average({"w": weight}, decay=0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]):
        weight.fill_(value)
        average.update(step)
        decay = min(0.5, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(average.weights["w"], torch.tensor([expected]))
    assert expected < 10
    with average.in_use():
        assert torch.allclose(weight, torch.tensor([expected]))
    assert weight.item() == 10.0
    assert torch.allclose(average.weights["w"], torch.tensor([expected]))
