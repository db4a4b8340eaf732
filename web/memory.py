"""Memory that was freed goes back to the system, where the C library is glibc.

By itself glibc keeps one arena for each thread, and raises the size from which on it asks the system for a block of its
own up to 32 MiB (mallopt(3), M_ARENA_MAX and M_MMAP_THRESHOLD). After a burst of large requests a process then keeps
more than 100 MB that nothing uses.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_THRESHOLD = 256 * 1024  # bytes: smaller blocks, such as most arrays of placement, are not mapped anew each time
_ARENAS = 2


def return_freed_memory() -> bool:
    """For the whole process, best at its start. False where the C library has no mallopt (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    options = {_M_ARENA_MAX: _ARENAS, _M_TRIM_THRESHOLD: _THRESHOLD, _M_MMAP_THRESHOLD: _THRESHOLD}
    done = [mallopt(option, value) for option, value in options.items()]
    return all(done)
