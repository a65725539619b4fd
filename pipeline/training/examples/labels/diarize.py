"""Who speaks in which frames, from the marks of an RTTM file."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.clip_names import names_of
from pipeline.metrics.rttm import Marks
from pipeline.training.examples.index import Ragged
from pipeline.training.examples.labels import Labels, Reason, Reasons, labels_of


@dataclass(frozen=True)
class Diarize:
    """Labels for `diarize`.

    Attributes:
        marks: of recordings, by the names that RTTM files give them.
        speakers: how many the head tells apart.
        frame_s: seconds from one frame to the next.
    """

    marks: Mapping[str, Marks]
    speakers: int
    frame_s: float

    def __call__(self, rows: pa.Table) -> Labels:
        """A clip is known by the surest of its names that is marked. Of several clips that answer to one name
        that counts whose name it is most surely, as in scoring; else nobody knows whose marks they are."""
        why = Reasons(len(rows))
        encoded = rows["clip.id"].combine_chunks().dictionary_encode()
        clip_of = encoded.indices.to_numpy()
        named, ambiguous = self._names(encoded.dictionary.to_pylist())
        why.give(np.array([name is None for name in named], np.bool_)[clip_of], Reason.NO_LABEL)
        for row in why.give(np.array(ambiguous, np.bool_)[clip_of], Reason.AMBIGUOUS_NAME):
            why.details[row] = f"other clips answer to {named[clip_of[row]]} of the RTTM too"

        frames, speeds = rows["clip.frames"].to_numpy(), rows["clip.speed"].to_numpy()
        values, offsets = array("i"), [0]
        for row, usable in enumerate(why.none):
            name = named[clip_of[row]]
            if usable and name is not None:
                frame_s = self.frame_s * float(speeds[row])  # of the recording at its own speed
                found = _turns(self.marks[name], frame_s, int(frames[row]))
                if found is None:
                    why.give_one(row, Reason.UNSCORED)
                elif (count := max(found[::3], default=-1) + 1) > self.speakers:
                    detail = f"{count} speakers, the head tells {self.speakers} apart"
                    why.give_one(row, Reason.TOO_MANY_SPEAKERS, detail)
                else:
                    values.extend(found)
            offsets.append(len(values))
        return labels_of(Ragged(np.array(values, np.int32), np.array(offsets, np.int64)), why)

    def _names(self, clip_ids: Sequence[str]) -> tuple[list[str | None], list[bool]]:
        """The name under which each clip is marked, and whether another has as good a right to it."""
        found: list[tuple[str, int] | None] = []
        surest: dict[str, list[int]] = {}
        for clip_id in clip_ids:
            name = next((item for item in names_of(clip_id).items() if item[0] in self.marks), None)
            found.append(name)
            if name is not None:
                surest.setdefault(name[0], []).append(name[1])
        ambiguous = []
        for name in found:
            places = [] if name is None else surest[name[0]]
            ambiguous.append(name is not None and (name[1] > min(places) or places.count(name[1]) > 1))
        return [None if name is None else name[0] for name in found], ambiguous


def _turns(marks: Marks, frame_s: float, frames: int) -> list[int] | None:
    """Triples (speaker, first frame, one past the last), speakers in the order in which they begin.

    None where nobody wants a part of these frames scored.
    """
    if any(span.start_s < frames * frame_s for span in marks.unscored):
        return None
    number: dict[str, int] = {}
    found: list[int] = []
    for speaker, start_s, end_s in sorted(marks.segments, key=lambda segment: segment.start_s):
        first, last = (min(round(second / frame_s), frames) for second in (start_s, end_s))
        if first < last:
            found += (number.setdefault(speaker, len(number)), first, last)
    return found
