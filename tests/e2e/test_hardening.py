"""The program is built so that a memory error ends it instead of handing it over."""

import os
import platform
import re
import struct

import pytest

from support.fixtures import need
from support.relay import relay_binary

TYPE_DYN = 3
LOAD, DYNAMIC, STACK, RELRO = 1, 2, 0x6474E551, 0x6474E552
EXECUTABLE = 1
DT_NULL, DT_STRTAB, DT_STRSZ, DT_FLAGS, DT_FLAGS_1 = 0, 5, 10, 30, 0x6FFFFFFB
BIND_NOW, NOW, PIE = 8, 1, 0x08000000
# sub $4096, %rsp; orq $0, (%rsp): each page of a large frame is touched.
STACK_PROBE = bytes.fromhex("4881ec00100000" "48830c2400")
ENDBR64 = bytes.fromhex("f30f1efa")


class Elf:
    """The parts of a 64-bit little-endian ELF file that the tests ask for."""

    def __init__(self, path):
        with open(path, "rb") as source:
            self.bytes = source.read()
        assert self.bytes[:6] == b"\x7fELF\x02\x01", path
        (self.type, _, _, self.entry, start, _, _, _, size, count) = struct.unpack_from(
            "<HHIQQQIHHH", self.bytes, 16)
        # (type, flags, offset, address, size in the file)
        self.segments = []
        for i in range(count):
            kind, flags, offset, address, _, length, _, _ = struct.unpack_from(
                "<IIQQQQQQ", self.bytes, start + i * size)
            self.segments.append((kind, flags, offset, address, length))
        self.dynamic = dict(self._dynamic())
        names = self.dynamic[DT_STRTAB]
        names = self._offset(names)
        self.names = set(self.bytes[names:names + self.dynamic[DT_STRSZ]].decode().split("\0"))

    def segment(self, kind):
        return next((one for one in self.segments if one[0] == kind), None)

    def code(self):
        return b"".join(self.bytes[offset:offset + length]
                        for kind, flags, offset, _, length in self.segments
                        if kind == LOAD and flags & EXECUTABLE)

    def _offset(self, address):
        for kind, _, offset, begin, length in self.segments:
            if kind == LOAD and begin <= address < begin + length:
                return offset + address - begin
        raise LookupError(hex(address))

    def _dynamic(self):
        _, _, offset, _, length = self.segment(DYNAMIC)
        for at in range(offset, offset + length, 16):
            tag, value = struct.unpack_from("<QQ", self.bytes, at)
            if tag == DT_NULL:
                return
            yield tag, value


@pytest.fixture(scope="module")
def binary():
    path = relay_binary()
    need(path, "the relay's binary")
    cache = os.path.join(os.path.dirname(path), "CMakeCache.txt")
    if os.path.exists(cache):
        with open(cache) as lines:
            text = lines.read()
        need("CMAKE_BUILD_TYPE:STRING=Debug" not in text, "an optimised build")
    return Elf(path)


def test_it_is_loaded_at_an_address_that_is_not_known_before(binary):
    assert binary.type == TYPE_DYN and binary.dynamic[DT_FLAGS_1] & PIE


def test_the_stack_is_not_executable(binary):
    assert binary.segment(STACK) and not binary.segment(STACK)[1] & EXECUTABLE


def test_no_segment_is_writable_and_executable(binary):
    assert not [one for one in binary.segments if one[0] == LOAD and one[1] & 3 == 3]


def test_function_tables_are_resolved_at_the_start_and_read_only_then(binary):
    assert binary.segment(RELRO)
    assert binary.dynamic.get(DT_FLAGS, 0) & BIND_NOW or binary.dynamic[DT_FLAGS_1] & NOW


def test_an_overwritten_stack_frame_is_noticed(binary):
    assert "__stack_chk_fail" in binary.names


def test_library_calls_check_the_size_of_their_buffers(binary):
    checked = {name for name in binary.names if re.fullmatch(r"__\w+_chk", name)}
    assert checked & {"__memcpy_chk", "__memmove_chk", "__memset_chk", "__read_chk", "__recv_chk"}


def test_the_standard_library_checks_bounds(binary):
    assert "_ZSt21__glibcxx_assert_failPKciS0_S0_" in binary.names


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for instructions of x86-64")
def test_no_frame_leaps_over_the_guard_page_of_a_stack(binary):
    assert STACK_PROBE in binary.code()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for instructions of x86-64")
def test_targets_of_indirect_calls_are_marked(binary):
    # The start-up code of the C library may have some; most functions of ours begin so.
    assert binary.code().count(ENDBR64) > 1000
