"""Makes glibc return freed memory to the operating system.

By default, glibc keeps an arena for each thread and raises the size above which it maps a block separately to as much
as 32 MiB (mallopt(3), M_ARENA_MAX and M_MMAP_THRESHOLD). After a burst of large requests, a process would then keep
more than 100 MB of unused memory.

Below that size, glibc returns only what is free at the end of an arena, so that one small block in use keeps all
memory below it: another 100 MB after many bodies of less than 256 KiB at the same time. malloc_trim(3) also returns
free pages between blocks, and is therefore called regularly.
"""

import ctypes
import threading
import time

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_THRESHOLD = 256 * 1024  # bytes: mapping smaller blocks, such as most arrays of placement, would cost time
_ARENAS = 2
TRIM_EVERY = 30.0  # seconds; a trim takes some milliseconds, or 0.1 s when it returns 100 MB


def return_freed_memory(trim_every: float = TRIM_EVERY) -> bool:
    """Applies to the whole process, and starts a thread; call it once, at the start, in the process that works and not
    in its parent. False if the C library has neither function (musl, macOS)."""
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError):
        return False
    malloc_trim.argtypes = [ctypes.c_size_t]
    options = {_M_ARENA_MAX: _ARENAS, _M_TRIM_THRESHOLD: _THRESHOLD, _M_MMAP_THRESHOLD: _THRESHOLD}
    done = [mallopt(option, value) for option, value in options.items()]

    def trim() -> None:
        while True:
            time.sleep(trim_every)
            malloc_trim(0)  # without the interpreter's lock

    threading.Thread(target=trim, name="malloc_trim", daemon=True).start()
    return all(done)
