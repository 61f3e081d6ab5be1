"""Checkers of histories, one file for each property.

A checker needs only a history. So `./maelstrom check` can run a workload's checker on any recorded
history.

    linearizable    lin-kv
    unique_ids      unique-ids
    set_full        broadcast and g-set
    counter         g-counter and pn-counter
    kafka           kafka; kafka_log and kafka_cycles are its parts
    list_append     txn-list-append, after Elle's list-append
    rw_register     txn-rw-register, after Elle's rw-register
    verdict         the verdict of the middle four; clojure has the rules for comparing values

The checkers of transactions share elle (verdict and explanations), cycles (search), consistency
(models) and transactions (reading a history).
"""
