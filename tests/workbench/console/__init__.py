"""A run in the terminal: Jepsen's lines, below them one of progress, at the end a table."""
