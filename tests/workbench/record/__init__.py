"""What a run records: its history (in EDN), its messages, its nodes' life.

`store` lays them into the run's folder, and `history`, `journal` and `life` read them again.
"""
