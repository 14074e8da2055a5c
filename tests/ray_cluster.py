"""A Ray cluster of this machine alone, for test_study_ray.py and a benchmark: ``python ray_cluster.py NODES CPUS``.

Prints its address when it is up. Of the lines read from standard input, "kill" kills a node that is not the head, once
it has a task in hand, and "add" adds one; the end of the input ends the cluster.
"""

import os
import subprocess
import sys
import time

# Every port on 127.0.0.1.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray.cluster_utils import Cluster


def busy(node) -> bool:
    """Whether a worker of a node has a run in hand; Ray makes the task the title of its process."""
    raylet = node.all_processes["raylet"][0].process.pid
    asked = ["ps", "--ppid", str(raylet), "-o", "args="]
    titles = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    return any(title.startswith("ray::_do") for title in titles)


if __name__ == "__main__":
    count, cpus = map(int, sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=cpus) for _ in range(count - 1)]
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=cpus))
        else:
            lost, until = nodes.pop(), time.monotonic() + 120
            while not busy(lost):
                if time.monotonic() > until:
                    sys.exit("the node to be killed has had no run for two minutes")
                time.sleep(0.05)
            cluster.remove_node(lost, allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()
