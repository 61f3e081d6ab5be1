"""Units of time. All times are in nanoseconds, as in Jepsen's histories."""

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1000
