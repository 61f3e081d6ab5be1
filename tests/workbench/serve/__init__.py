"""`./maelstrom serve`: serves all runs in store/ to a web browser on this machine."""
