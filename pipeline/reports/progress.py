"""How far a run is, while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What this start of a run has done so far.

    Attributes:
        clips: whose rows are made, those that are errors too.
        audio_s: seconds of annotated audio.
        seconds: since the stages started.
        expected: clips that this start is to do; None: nothing tells yet.
        exact: whether they were counted; else they follow from what was read so far.
    """

    clips: int
    errors: int
    audio_s: float
    seconds: float
    expected: int | None = None
    exact: bool = False

    @property
    def speed(self) -> float | None:
        """Seconds of audio a second; None before there is any."""
        return self.audio_s / self.seconds if self.audio_s and self.seconds else None

    @property
    def share(self) -> float | None:
        """Of the clips."""
        return None if not self.expected else min(1.0, self.clips / self.expected)

    @property
    def left_s(self) -> float | None:
        """Seconds, if it goes on as until now."""
        if not self.clips or self.expected is None:
            return None
        return self.seconds / self.clips * max(0, self.expected - self.clips)

    def line(self) -> str:
        """For a person."""
        clips = f"{self.clips:,} clips"
        if self.expected is not None:
            about = "" if self.exact else "about "
            clips = f"{self.clips:,} of {about}{max(self.expected, self.clips):,} clips"
        parts = [clips, f"{self.errors:,} error{'' if self.errors == 1 else 's'}"]
        if self.speed is not None:
            parts.append(f"{self.speed:,.1f} x real time")
        if self.left_s is not None:
            parts.append(f"{duration(self.left_s)} left")
        return " | ".join(parts)

    def facts(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "speed": self.speed, "left_s": self.left_s}


Show = Callable[[Progress], None]


def duration(seconds: float) -> str:
    """As a person says it: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
