"""A test bench for Maelstrom nodes that needs nothing but Python.

The workbench runs a binary the way Maelstrom does, and injects faults. It records the clients'
operations as a history in Jepsen's formats, and checks that history. Its packages and modules:

    __main__, check, serve/   the commands of ./maelstrom; install is `make maelstrom`
    soak/         many simulated runs, on this machine or on a Dask cluster
    running/      one test: options, runner, clients, node processes, results
    workloads/    the clients' requests and the meaning of replies: one file for each workload
    checkers/     checkers of histories: one file for each property
    network/      the network between nodes and clients, and the nemesis, which injects faults
    services/     Maelstrom's services for nodes: lin-kv, seq-kv, lww-kv, lin-tso
    record/       the files of a run in store/: EDN, history, messages, the nodes' roles and logs
    console/      the terminal's view of a run: log lines, progress, the final table
    report/       the browser's view of a run: report.html, timeline.html, linear.svg
    simulation/   the event loop, a cluster in virtual time, Raft's invariants
    reasons       why a run is not valid, in words, for the terminal and the pages
    verdicts, units   names that all packages use
"""
