"""Fine-tuning on three nodes, and again while one that trains is lost: a program, for a cluster of its own.

python -m tests.jobs.three_nodes CORPUS FEATURES OUTPUT AGAIN
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from threading import Thread

import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from jobs.cli.training import main as finetune
from tests.jobs.finetuning import arguments

STEPS, SAVED, STRUCK_AFTER = 60, 5, 20


def main() -> int:
    corpus, features, output, again = map(Path, sys.argv[1:])
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000}
    )
    others = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)

    def lose_one() -> None:
        while not list(again.glob(f"checkpoints/step-*{STRUCK_AFTER}/complete.json")):
            time.sleep(0.01)
        workers = list_actors(filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")])
        at = {worker.node_id for worker in workers}
        lost = next(node for node in others if node.node_id in at)
        cluster.remove_node(lost, allow_graceful=False)
        print(f"lost one of the {len(at)} nodes that trained", flush=True)

    for place in (output, again):
        if place == again:
            Thread(target=lose_one, daemon=True).start()
        told = {"max_steps": STEPS, "save_steps": SAVED, "valid_share": 0.2, "num_workers": 2}
        if status := finetune(arguments(corpus, place, features=features, **told)):
            return status
    print("nodes left", sum(node["Alive"] for node in ray.nodes()), flush=True)
    ray.shutdown()
    cluster.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
