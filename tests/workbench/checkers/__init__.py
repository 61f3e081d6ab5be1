"""Judges of histories, and of nothing else: one file for each property.

A workload's `check` asks one, so `./maelstrom check` can ask it of any recorded history.
"""
