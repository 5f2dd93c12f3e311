"""What this machine's processor does with products of bytes."""

import platform
from pathlib import Path


def has_vnni(cpuinfo: str | None = None) -> bool:
    """Whether products of uint8 and int8 are added in 32 bits in one instruction: VNNI, or the dot products of 64-bit Arm.

    Args:
        cpuinfo: of /proc/cpuinfo; this machine's if None. False where the system has no such file.

    >>> has_vnni("flags : avx2 avx512_vnni"), has_vnni("flags : avx2 fma")
    (True, False)
    """
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text() if path.exists() else ""
        if platform.system() == "Darwin" and platform.machine() == "arm64":
            return True
    words = set(cpuinfo.split())
    return bool(words & {"avx512_vnni", "avx_vnni", "asimddp"})
