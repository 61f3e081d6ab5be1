"""The unit of all times is the nanosecond, as in Jepsen's histories."""

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1000
