"""A job on two nodes, and again while one of them is lost: a program, for a cluster of its own.

python -m tests.jobs.two_nodes CORPUS OUTPUT AGAIN
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from threading import Thread

import ray
from ray.cluster_utils import Cluster

from pipeline.job import run
from pipeline.spec import TranscribeSpec
from tests.conftest import ROOT


def main() -> None:
    corpus, output, again = sys.argv[1:]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000}
    )
    other = cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)

    def lose_it() -> None:
        while not list(Path(again).glob("*.parquet")):
            time.sleep(0.02)
        cluster.remove_node(other, allow_graceful=False)
        print("lost after", len(list(Path(again).glob("*.parquet"))), "files", flush=True)

    model = str(ROOT / "demo" / "checkpoint")
    for place in (output, again):
        if place == again:
            Thread(target=lose_it, daemon=True).start()
        run(TranscribeSpec(input=[corpus], output=place, model=model, rows_per_file=10))
    print("nodes left", sum(node["Alive"] for node in ray.nodes()), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
