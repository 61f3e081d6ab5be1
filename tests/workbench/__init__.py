"""A test bench for Maelstrom nodes that needs nothing but Python.

It runs a binary the way Maelstrom does, disturbs its network, records a history of what the
clients saw in Jepsen's formats (`history`, `edn`) and judges whether that history is
linearizable (`checker`, `judge`).
"""
