"""Lanes: several jobs on one table and one corpus, each with the shards whose URIs hash to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Lane:
    """One of several jobs that share a table.

    Attributes:
        number: from 1.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Lane:
        """`3/16`; raises ValueError for anything else."""
        match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
        lane = cls(int(match[1]), int(match[2])) if match else None
        if lane is None or lane.number > lane.of:
            raise ValueError(
                f"lane: {text!r} is no lane; give its number and that of all lanes, such as 3/16"
            )
        return lane

    def takes(self, uri: str) -> bool:
        """Whether the shard there is one of the lane's. Names depend on what is known when a lane starts."""
        digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def lane_suffix(lane: Lane | None) -> str:
    """How the names of a lane's runs and of its lock end."""
    return f"-{lane.number}of{lane.of}" if lane else ""


def lane_named(name: str) -> Lane | None:
    """The lane of a run, a file or a lock of this name; None for those of a job on the whole table."""
    match = re.search(r"-(\d+)of(\d+)(?=-|$)", name)
    return Lane(int(match[1]), int(match[2])) if match else None


def may_meet(one: Lane | None, other: Lane | None) -> bool:
    """Whether jobs on these lanes may have shards in common, so that one must wait for the other."""
    return one is None or other is None or one.of != other.of or one == other
