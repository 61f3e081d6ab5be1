"""Checkers of histories, one file for each property.

A checker needs only a history. So `./maelstrom check` can run a workload's checker on any recorded
history.

<<<<<<< HEAD
    linearizable    lin-kv
    unique_ids      unique-ids
    set_full        broadcast and g-set
    counter         g-counter and pn-counter
    kafka           kafka; kafka_log and cycles are its parts
    verdict         the verdict of the last four; clojure has the rules for comparing values
=======
    linearizable    registers: does one order of the operations explain all reads?
    list_append     transactions on lists: Elle's list-append
    rw_register     transactions on registers: Elle's rw-register

The last two share elle (verdict and explanations), cycles (search), consistency (models) and
transactions (reading a history).
>>>>>>> elle
"""
