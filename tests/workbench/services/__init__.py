"""Services that nodes may ask (lin-kv, seq-kv, lww-kv, lin-tso): one file for each.

There are none yet. Each will be a peer on the network, a small class with a state; until then
the network refuses their names (`network.network.SERVICES`).
"""
