"""A Ray cluster of this machine alone, for test_study_ray.py and a benchmark: ``python ray_cluster.py NODES CPUS``.

Prints its address when it is up. Of the lines read from standard input, "kill" kills a node that is not the head and
"add" adds one; the end of the input ends the cluster.
"""

import os
import sys

# Every port on 127.0.0.1.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    count, cpus = map(int, sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=cpus) for _ in range(count - 1)]
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=cpus))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()
