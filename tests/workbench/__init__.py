"""A test bench for Maelstrom nodes that needs nothing but Python.

It runs a binary the way Maelstrom does, disturbs its network, records a history of what the
clients saw in Jepsen's formats and judges that history. The rooms, from the command to the clock:

    __main__, check, serve/   the commands of ./maelstrom; install is `make maelstrom`
    soak/         many simulated runs: seeds, shapes, workers here or on a Dask cluster
    running/      runs a test: options, runner, clients, nodes as processes, results
    workloads/    what clients do, and what answers mean: one file for each
    checkers/     judges of histories: one file for each property
    network/      the network between nodes and clients, and its faults: the nemesis
    services/     what nodes may ask besides each other: one file for each, none yet
    record/       what a run leaves: EDN, history, messages, life, and the folder in store/
    console/      a run in the terminal: lines, progress, a table at the end
    report/       a run in the browser: report.html, timeline.html, linear.svg
    simulation/   the loop, and on it a cluster in virtual time; Raft's invariants
    verdicts, units   words that all of them use
"""
