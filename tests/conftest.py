"""Settings for all tests."""

import os

from hypothesis import settings

# An example may take long on a busy machine. That is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
os.environ["MAELSTROM_REPORT"] = "no"  # skips report.html, which takes time
