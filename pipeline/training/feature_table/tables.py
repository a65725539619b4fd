"""The feature tables of a run: of training, of validation and of noise, at each speed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.errors import BrokenOffError, JobError
from pipeline.storage import Storage, join
from pipeline.table.ledger import Ledger
from pipeline.training.feature_table.prepare import made_by, prepare
from pipeline.training.feature_table.spec import FeatureTableSpec
from pipeline.training.spec import FinetuneSpec
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

Listed = Callable[[], set[tuple[str, str]]]
"""The shards of the input with their versions, listed once and only where a table is there to compare."""
# `--overwrite` deletes a run, never its features.
_BY_HAND = {" with --overwrite": "", "give --overwrite": "delete the table"}


@dataclass(frozen=True)
class FeatureTables:
    """Makes or extends the feature tables of a run.

    Args:
        home: of all of them.
    """

    spec: FinetuneSpec
    extractor: SeamlessM4TFeatureExtractor
    storage: Storage
    home: str
    say: Callable[[str], None]

    def files(self, flag: str, inputs: Sequence[str], speeds: Sequence[float] = (1.0,)) -> list[str]:
        """The files of a table for each speed; none where there is no input.

        Args:
            flag: that the inputs were given with, without dashes.

        Raises:
            JobError: bad input, or a table that cannot be used.
        """
        listed = cache(partial(self._listed, inputs))
        tables = (self._files(flag, inputs, speed, listed) for speed in speeds if inputs)
        return [uri for files in tables for uri in files]

    def place(self, flag: str, inputs: Sequence[str], speed: float = 1.0) -> str:
        """Where the table of this input lies: `features/train-0123abcd`, `features/train-0123abcd-0.9`.

        Other input and other settings have other tables: a table keeps the clips of all input that it ever
        had, and runs of different settings may share the home.
        """
        data = self.spec.data
        named = sorted({self.storage.normalise(uri) for uri in inputs})
        facts = json.dumps([named, data.where, data.channel, data.max_duration_s, made_by(self.extractor)])
        name = f"{flag}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
        return join(self.home, name if speed == 1 else f"{name}-{speed:g}")

    def _files(self, flag: str, inputs: Sequence[str], speed: float, listed: Listed) -> list[str]:
        about = flag if speed == 1 else f"{flag} at speed {speed:g}"
        with self._own_flags(flag):
            place = self._sound(self.place(flag, inputs, speed), listed, about)
            asked = self._asked(inputs, place, speed)
            summary = prepare(asked, self.extractor, say=lambda line: self.say(f"{about}: {line}"))
        if not summary.complete:
            raise BrokenOffError(f"storage did not deliver all of {', '.join(inputs)}")
        table = Ledger(place, self.storage)
        return [table.uri_of(record) for record in table.files()]

    def _sound(self, home: str, listed: Listed, about: str) -> str:
        """The first table of this input none of whose shards has changed or is gone.

        A table keeps the rows that it has: with shards that are only new it grows, but of one that changed it
        would teach the old labels. The old table stays for the runs that learn from it.
        """
        place, number = home, 1
        while (then := self._planned(place)) and not then <= listed():
            number += 1
            place = f"{home}.{number}"
        if number > 1 and not then:
            self.say(f"{about}: shards changed or are gone since features were made of them; all anew")
        return place

    def _planned(self, place: str) -> set[tuple[str, str]]:
        """The shards that a table was made of, each with its version then."""
        plans = Ledger(place, self.storage).plans.all()
        return {(line.shard.uri, line.shard.version) for _, lines in plans for line in lines}

    def _listed(self, inputs: Sequence[str]) -> set[tuple[str, str]]:
        """The shards of the input, each with its version now."""
        found = discover(inputs, self.storage, outputs=(self.home,))
        return {(shard.uri, shard.version) for shard in drop_listed_files(found, self.storage)}

    @contextmanager
    def _own_flags(self, flag: str) -> Iterator[None]:
        """Messages name this job's flags: a table's own are those of jobs that write nothing else."""
        place = "--features" if self.spec.run.features else "--output"
        flags = {"--input": f"--{flag}", "--output": place} | _BY_HAND
        try:
            yield
        except JobError as problem:
            message = str(problem)
            for theirs, own in flags.items():
                message = message.replace(theirs, own)
            problem.args = (message,)
            raise

    def _asked(self, inputs: Sequence[str], place: str, speed: float) -> FeatureTableSpec:
        data, cluster = self.spec.data, self.spec.cluster
        return FeatureTableSpec.model_validate(
            {
                "input": list(inputs),
                "output": place,
                "speed": speed,
                "where": data.where,
                "channel": data.channel,
                "max_duration_s": data.max_duration_s,
                "allow_hosts": data.allow_hosts,
                "storage": data.storage,
                "featurize_actors": cluster.featurize_actors,
                "ray_address": cluster.ray_address,
            }
        )
