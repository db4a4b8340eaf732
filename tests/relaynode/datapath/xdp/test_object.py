"""The compiled program is committed, so that no node needs a compiler: here it is shown to be that of its source."""

import ctypes
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from relaynode.datapath.xdp import bpf, layout, loader
from relaynode.datapath.xdp.layout import REQUEST, RULE, SEAT
from tests.relaynode.datapath.xdp.twins import needs_kernel

ROOT = Path(__file__).parents[4]
CLANG = "14"  # another one may order instructions differently


def has_clang() -> bool:
    if shutil.which("clang") is None:
        return False
    return f"clang version {CLANG}." in subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout


@pytest.mark.skipif(not has_clang() and os.environ.get("CI") != "true", reason=f"no clang {CLANG} here")
def test_the_object_is_what_its_source_compiles_to(tmp_path: Path) -> None:
    target = tmp_path / "relay.bpf.o"
    line = subprocess.run(
        ["make", "--no-print-directory", "-n", "xdp"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    command = line.split()
    command[command.index("-o") + 1] = str(target)
    subprocess.run(command, cwd=ROOT, check=True)
    assert target.read_bytes() == loader.OBJECT.read_bytes(), "run `make xdp`"


@pytest.mark.skipif(shutil.which("clang") is None and os.environ.get("CI") != "true", reason="no clang here")
def test_the_fields_that_python_packs_have_the_offsets_of_the_c_structs(tmp_path: Path) -> None:
    checks = [
        f'_Static_assert(__builtin_offsetof(struct {struct}, {field}) == {offset}, "{struct}.{field}");'
        for struct, fields in (
            ("rule", layout.RULE_FIELDS),
            ("seat", layout.SEAT_FIELDS),
            ("request", {**layout.REQUEST_FIELDS, "rule": f"{RULE.size}s"}),
            ("name", {"session": "I", "name": "I"}),
        )
        for field, offset in layout.offsets(fields).items()
    ]
    source = tmp_path / "layout.c"
    source.write_text("\n".join([f'#include "{loader.OBJECT.with_suffix(".c")}"', *checks]))
    compiled = subprocess.run(["clang", "-target", "bpf", "-fsyntax-only", str(source)], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr


def test_maps_have_the_sizes_that_python_packs() -> None:
    shapes = loader.read_object().maps
    window = 2 * 1024 // 8
    hop = 16
    assert shapes["seats"].value_size == SEAT.size + hop + 8 + hop + window
    assert REQUEST.size % 8 == RULE.size % 8 == 0
    assert shapes["ports"].kind == bpf.PROG_ARRAY


def processed_by_the_verifier(code: bytes, name: str) -> int:
    """Instructions that the kernel's verifier follows, on all ways through the program."""
    statistics, log = 4, ctypes.create_string_buffer(1 << 16)
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    at = [ctypes.addressof(buffer) for buffer in (instructions, licence, log)]
    head = struct.pack("=IIQQ", bpf._PROGRAM_XDP, len(code) // 8, at[0], at[1])
    rest = struct.pack("=IIQII16s", statistics, len(log), at[2], 0, 0, name.encode())
    os.close(bpf._bpf("cannot load", bpf._PROG_LOAD, head + rest))
    found = re.search(r"processed (\d+) insns", log.value.decode())
    assert found
    return int(found[1])


@needs_kernel()
def test_the_verifier_has_room_left() -> None:
    """It gives up after a million, and another kernel's may follow more ways than this one's."""
    file = loader.read_object()
    maps = loader.make_maps(file, file.maps_of("relay"), 16)
    try:
        linked = file.linked("relay", {name: it.fd for name, it in maps.items()})
        assert processed_by_the_verifier(linked, "relay") < 700_000
    finally:
        for map_ in maps.values():
            os.close(map_.fd)


@needs_kernel()
def test_a_program_the_kernel_refuses_is_an_error_with_its_reason() -> None:
    with pytest.raises(bpf.BpfError, match="the kernel refuses the program endless"):
        bpf.load_program(bytes((0x05, 0, 0xFF, 0xFF, 0, 0, 0, 0)), "endless")  # jumps to itself for ever


def test_without_the_system_call_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_SYSTEM_CALL", None)
    with pytest.raises(bpf.BpfError, match="this kernel has no eBPF"):
        bpf.make_map(bpf.ARRAY, 4, 4, 1, "any")
