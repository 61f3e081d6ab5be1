"""The records of a run: its history (in EDN), its messages, and its nodes' roles over time.

`store` writes them into the run's folder. `history`, `journal` and `life` read them.
"""
