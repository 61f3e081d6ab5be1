"""Services that nodes can call (lin-kv, seq-kv, lww-kv, lin-tso), one file each.

None is implemented yet. Each will be a small class that answers on the network. Until then the
network rejects messages to their names (`network.network.SERVICES`).
"""
