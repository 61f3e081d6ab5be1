"""Settings for all tests."""

import os

os.environ["MAELSTROM_REPORT"] = "no"  # skips report.html, which takes time
