"""The event loop of a run, in real or virtual time, and the cluster simulated on it.

Only `raft_invariants` and `raft_words` depend on raft.py's fields and messages.
"""
