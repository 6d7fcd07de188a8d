"""A Ray cluster of a head without room and two nodes with two slots each, on the loopback address.

Prints one line of JSON: its address and the raylets' process ids. A line `remove PID` on stdin kills that
raylet's node; the end of stdin ends the cluster.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported

with tempfile.TemporaryDirectory(prefix="kr", dir="/tmp", ignore_cleanup_errors=True) as folder:
    os.environ["RAY_TMPDIR"] = folder
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    for _ in range(2):
        node = cluster.add_node(num_cpus=2)
        nodes[node.all_processes["raylet"][0].process.pid] = node
    print(json.dumps({"address": cluster.address, "raylets": list(nodes)}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes.pop(int(line.split()[1])), allow_graceful=False)
        print("removed", flush=True)
    cluster.shutdown()
