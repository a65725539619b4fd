"""The progress line of a fine-tuning run."""

from __future__ import annotations

from pipeline.training.report.progress import Progress, Step


def step(number: int, seconds: float = 2.0) -> Step:
    return Step(number, 3, {"transcribe": 0.84213, "embed": 1.5}, 4.1e-5, 5000.0, seconds)


def test_what_the_line_says() -> None:
    progress = Progress(10_000, 0.02)
    assert (progress.line(), progress.share, progress.done) == ("step 0/10,000", 0.0, 0)
    progress.step(step(1199))
    progress.validated(1000, {"transcribe/wer": 0.234, "masked-prediction/loss": 3.14159})
    progress.step(step(1200))
    assert progress.line() == (
        "step 1,200/10,000 | epoch 3 | transcribe 0.8421 | embed 1.5 | lr 4.10e-05 | "
        "2,500 frames/s, 50 x real time | 4 h 53 min left | "
        "transcribe wer 23.4%, masked-prediction loss 3.142 at step 1,000"
    )
    assert (progress.share, progress.done) == (0.12, 1200)
    assert progress.facts() == {**step(1200)._asdict(), "max_steps": 10_000}


def test_a_slow_step_does_not_move_the_forecast() -> None:
    progress = Progress(110, 0.02)
    for number in range(1, 10):
        progress.step(step(number))
    progress.step(step(10, seconds=500.0))
    assert "| 3 min left" in progress.line()
