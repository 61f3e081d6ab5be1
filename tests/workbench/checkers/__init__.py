"""Checkers of histories, one file for each property.

A checker needs only a history. So `./maelstrom check` can run a workload's checker on any recorded
history.

    linearizable    lin-kv
    unique_ids      unique-ids
    set_full        broadcast and g-set
    counter         g-counter and pn-counter
    kafka           kafka; kafka_log and cycles are its parts
    verdict         the verdict of the last four; clojure has the rules for comparing values
"""
