"""`./maelstrom serve`: all runs in store/, for a web browser on this machine."""
