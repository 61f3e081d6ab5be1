"""Runs a test.

`options` parses the command line, `prepare` creates the parts, and `runner` runs them: the
clients of `client` and the nodes of `cluster`. `results` checks the run.
"""
