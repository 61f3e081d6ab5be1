"""The network between nodes and clients, and the faults that the nemesis makes in it."""
