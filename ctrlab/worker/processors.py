"""How many processors this process may use."""

import os
from pathlib import Path


def usable_processors() -> int:
    """Processors of this process's affinity mask, or fewer where its container has a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max" for no quota
        return count
