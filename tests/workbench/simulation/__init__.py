"""A run's loop, in real or virtual time, and a cluster that is simulated on it.

`raft_invariants` and `raft_words` know raft.py's fields and messages; nothing else here does.
"""
