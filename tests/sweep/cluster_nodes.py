"""A Ray cluster with a token: a head without room, and two nodes of two slots each, on the loopback address.

Prints one line of JSON: its address and the raylets' process ids. A line `remove PID` on stdin kills that
raylet's node, `blind FOLDER` adds a node of two slots that sees an empty folder there; both are answered by
a line. The end of stdin ends the cluster.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported
os.environ["RAY_AUTH_MODE"] = "token"


def join(address):
    """Be a node of two slots of a running cluster, until a signal comes."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    room = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100 << 20}
    Node(RayParams(gcs_address=address, node_manager_port=0, **room), head=False)
    signal.pause()


if len(sys.argv) > 1:
    join(sys.argv[1])
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
            hidden = 'mount -t tmpfs none "$0" && exec "$@"'
            words = [argument, sys.executable, __file__, cluster.address]
            blind.append(subprocess.Popen(["unshare", "--mount", "sh", "-c", hidden, *words]))
            limit = time.monotonic() + 60
            while sum(n["Alive"] for n in cluster.global_state.node_table()) < len(nodes) + 2:
                assert time.monotonic() < limit
                time.sleep(0.1)
        print("done", flush=True)
    for process in blind:
        process.terminate()
        process.wait()
    cluster.shutdown()
