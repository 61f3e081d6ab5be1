"""Shows a run in the terminal: Jepsen's log lines, a progress line, and a table at the end."""
