"""The cluster: its nodes, where VMs go, and one API for all of them.

A request enters by `service` (`ExplorerService`) or `cluster` (`ComputeService` for the whole
cluster). `nodes` decides which heartbeats count and what state a node is in, `leases` when
silence makes it unreachable, `placement` where a VM goes; these three are pure. `registry` keeps
the nodes, `index` the VMs they reported; reads are answered from these and wait for no node.
What changes something goes to the node that owns the VM, through `node_proxy`; `deployment` is
the one thing that spans nodes. `joining`, `tokens` and `sessions` say who may come in. `tap`
puts it all together.
"""
