"""Output files summed up side by side on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import ray

from pipeline.engine.cluster import TASK_CPUS, task_errors
from pipeline.metrics.base import Metric
from pipeline.reports.summary import Tally, tally_file
from pipeline.storage import Storage


def tally_files(uris: Sequence[str], storage: Storage, metrics: Mapping[str, Metric]) -> Tally:
    """The sums of all files; `metrics` are without rows, and stay so."""
    task: Any = ray.remote(num_cpus=TASK_CPUS)(tally_file)
    held = ray.put(metrics)
    total = Tally(deepcopy(dict(metrics)))
    pending = [task.remote(uri, storage, held) for uri in uris]
    while pending:
        with task_errors():
            ready, pending = ray.wait(pending)
            for tally in ray.get(ready):
                total.add(tally)
    return total
