"""Checkers of histories, one file for each property.

A checker needs only a history. So `./maelstrom check` can run a workload's checker on any recorded
history.
"""
