"""Makes glibc return freed memory to the operating system.

By default, glibc keeps an arena for each thread and raises the size above which it maps a block separately to as much
as 32 MiB (mallopt(3), M_ARENA_MAX and M_MMAP_THRESHOLD). After a burst of large requests, a process would then keep
more than 100 MB of unused memory.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_THRESHOLD = 256 * 1024  # bytes: mapping smaller blocks, such as most arrays of placement, would cost time
_ARENAS = 2


def return_freed_memory() -> bool:
    """Applies to the whole process; call it at the start. False if the C library has no mallopt (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    options = {_M_ARENA_MAX: _ARENAS, _M_TRIM_THRESHOLD: _THRESHOLD, _M_MMAP_THRESHOLD: _THRESHOLD}
    done = [mallopt(option, value) for option, value in options.items()]
    return all(done)
