"""A Ray cluster of a head without room and two nodes with two slots each, on the loopback address.

Prints one line of JSON: its address and the raylets' process ids. A line `remove PID` on stdin kills that
raylet's node, `blind FOLDER` adds a node of two slots that sees an empty folder there; both are answered by
a line. The end of stdin ends the cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    blind = []
    for line in sys.stdin:
        what, _, argument = line.strip().partition(" ")
        if what == "remove":
            cluster.remove_node(nodes.pop(int(argument)), allow_graceful=False)
        else:
            start = f"ray start --address={cluster.address} --num-cpus=2 --block"
            hidden = f'mount -t tmpfs none "$0" && exec {Path(sys.executable).parent}/{start}'
            blind.append(
                subprocess.Popen(
                    ["unshare", "--mount", "sh", "-c", hidden, argument],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            while sum(n["Alive"] for n in cluster.global_state.node_table()) < len(nodes) + 2:
                time.sleep(0.1)
        print("done", flush=True)
    for process in blind:
        process.terminate()
        process.wait()
    cluster.shutdown()
