"""The local adapter: documents are files in one folder, workloads are processes on this machine.

`store.py` owns the folder's layout, `files.py` writes that survive a crash, `nursery.py` and `processes.py` the
trainers' processes, `attempts.py` what is written down of them, `memory.py` how many fit, `cluster.py` the port,
`takeover.py` what a dead driver left, `driver.py` the loop, `apply.py` and `data.py` what happens before it.
"""

from sweep_operator.clusters.local.cluster import LocalCluster

__all__ = ["LocalCluster"]
