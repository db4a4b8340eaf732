"""bpf(2) through ctypes: maps, programs and links. Each is a file descriptor that lives as long as the process.

The structures are those of linux/bpf.h. All functions raise BpfError, whose `reason` is written for the operator.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine())

_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _PROG_LOAD, _TEST_RUN = 0, 1, 2, 3, 5, 10
_LINK_CREATE = 28
_PROGRAM_XDP = 6
_ATTACH_XDP = 37
_NO_PREALLOC = 1
_LIVE_FRAMES = 2

NATIVE, GENERIC = 1 << 2, 1 << 1
"""XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE."""

HASH, ARRAY, PROG_ARRAY, PERCPU_ARRAY = 1, 2, 3, 6


class BpfError(Exception):
    def __init__(self, what: str, number: int, detail: str = "") -> None:
        self.errno = number
        self.reason = f"{what}: {_SENTENCES.get(number) or os.strerror(number).lower()}"
        super().__init__(f"{self.reason}\n{detail}" if detail else self.reason)


_SENTENCES = {
    errno.EPERM: "not permitted (it needs CAP_BPF and CAP_NET_ADMIN, or root)",
    errno.ENOSYS: "this kernel has no eBPF",
    errno.EOPNOTSUPP: "the driver does not support it",
    errno.EBUSY: "another XDP program is attached there",
}


def _bpf(what: str, command: int, attributes: bytes) -> int:
    return _call(what, command, ctypes.create_string_buffer(attributes, len(attributes)))


def _call(what: str, command: int, attributes: "ctypes.Array[ctypes.c_char]", size: int = 0) -> int:
    if _SYSTEM_CALL is None:
        raise BpfError(what, errno.ENOSYS)
    result: int = _libc.syscall(_SYSTEM_CALL, command, attributes, size or len(attributes))
    if result < 0:
        raise BpfError(what, ctypes.get_errno())
    return result


_libc = ctypes.CDLL(None, use_errno=True)


def make_map(kind: int, key_size: int, value_size: int, entries: int, name: str) -> "Map":
    flags = _NO_PREALLOC if kind == HASH else 0
    fd = _bpf(
        f"cannot make the map {name}",
        _MAP_CREATE,
        struct.pack("=IIIIIII16s", kind, key_size, value_size, entries, flags, 0, 0, name.encode()[:15]),
    )
    return Map(fd, key_size, value_size * _cpus() if kind == PERCPU_ARRAY else value_size)


class Map:
    """A map whose keys and values are bytes of the given sizes."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(value_size)
        self._attributes = ctypes.create_string_buffer(
            struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value), 0), 32
        )

    def get(self, key: bytes) -> bytes | None:
        """The value; None: the key is not in the map. A per-CPU map returns the values of all CPUs in sequence."""
        self._key.raw = key
        try:
            _call("cannot read a map", _LOOKUP, self._attributes)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self._value.raw

    def put(self, key: bytes, value: bytes) -> None:
        self._key.raw, self._value.raw = key, value
        _call("cannot write a map", _UPDATE, self._attributes)

    def remove(self, key: bytes) -> None:
        """Remove the key if it is in the map."""
        self._key.raw = key
        try:
            _call("cannot write a map", _DELETE, self._attributes, 16)  # no value
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def close(self) -> None:
        os.close(self.fd)


def load_program(code: bytes, name: str) -> int:
    """A file descriptor of the XDP program `code`, verified and compiled by the kernel."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")

    def load(log: "ctypes.Array[ctypes.c_char] | None") -> int:
        log_at = ctypes.addressof(log) if log is not None else 0
        return _bpf(
            f"the kernel refuses the program {name}",
            _PROG_LOAD,
            struct.pack(
                "=IIQQIIQII16s",
                _PROGRAM_XDP,
                len(code) // 8,
                ctypes.addressof(instructions),
                ctypes.addressof(licence),
                int(log is not None),
                len(log) if log is not None else 0,
                log_at,
                0,
                0,
                name.encode()[:15],
            ),
        )

    try:
        return load(None)
    except BpfError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise
    log = ctypes.create_string_buffer(1 << 24)
    try:
        return load(log)
    except BpfError as error:
        verdict = log.value.decode(errors="replace")[-2000:]
        raise BpfError(f"the kernel refuses the program {name}", error.errno, verdict) from None


def attach(program: int, interface: int, flags: int) -> int:
    """A link: the program stays attached to the interface until the descriptor is closed or the process ends."""
    return _bpf("cannot attach", _LINK_CREATE, struct.pack("=IIII", program, interface, _ATTACH_XDP, flags))


class Runner:
    """Runs an XDP program on a buffer instead of a packet (BPF_PROG_TEST_RUN)."""

    def __init__(self, program: int, size: int) -> None:
        self._input = ctypes.create_string_buffer(size)
        self._output = ctypes.create_string_buffer(size + 512)
        self._context = ctypes.create_string_buffer(24)
        self._program = program

    def run(self, packet: bytes, interface: int = 0) -> tuple[int, bytes]:
        """(the return value of the program, the resulting packet). `interface`: the ingress interface, if not lo."""
        ctypes.memmove(self._input, packet, len(packet))
        attributes = ctypes.create_string_buffer(
            struct.pack(
                "=IIIIQQIIIIQQ",
                self._program,
                0,
                len(packet),
                len(self._output),
                ctypes.addressof(self._input),
                ctypes.addressof(self._output),
                0,
                0,
                0,
                0,
                0,
                0,
            ),
            64,
        )
        _call("cannot run the program", _TEST_RUN, attributes)
        result, _, size = struct.unpack_from("=III", attributes, 4)
        return result, self._output.raw[:size]


def run_live(program: int, frame: bytes, count: int) -> None:
    """Run an XDP program `count` times on real frames (Linux 5.18), to generate load in benchmarks."""
    data = ctypes.create_string_buffer(frame, len(frame))
    attributes = struct.pack(
        "=IIIIQQIIIIQQIIII",
        program,
        0,
        len(frame),
        0,
        ctypes.addressof(data),
        0,
        count,
        *(0, 0, 0, 0, 0),
        *(_LIVE_FRAMES, 0, 64, 0),
    )
    _bpf("cannot run the program", _TEST_RUN, attributes)


def _cpus() -> int:
    """The number of possible CPUs, which is the number of values in an entry of a per-CPU map."""
    with open("/sys/devices/system/cpu/possible") as file:
        return sum(1 for _ in _numbers(file.read().strip()))


def _numbers(ranges: str) -> Iterator[int]:
    """The numbers in a list of ranges such as "0-3,5"."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
