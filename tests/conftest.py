"""For all tests."""

import os

os.environ["MAELSTROM_REPORT"] = "no"  # of the many runs that nobody looks at
