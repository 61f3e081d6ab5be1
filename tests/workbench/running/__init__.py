"""Runs a test: `options` say what, `prepare` makes the parts, `runner` runs them.

`client` and `cluster` are whom it talks to, and `results` is what comes of it.
"""
