"""What a CUDA kernel costs, measured without a GPU: PTX, registers, spills, SASS of its loops.

numba-cuda compiles to PTX, libnvJitLink (the wheel of the same version) assembles it, nvdisasm
lists the machine code. All offline.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cudahost import code_library

TARGETS = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
_SHARED_KIB = {"75": 64, "80": 164, "86": 100, "89": 100, "90": 228, "100": 228, "120": 100}
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
_LABEL = re.compile(r"^(\.L_x?_?\w+):")


@dataclass(frozen=True)
class Instruction:
    """One line of SASS."""

    address: int
    predicate: str
    opcode: str
    operands: str


@dataclass(frozen=True)
class Loop:
    """Instructions from a backward branch's target to the branch."""

    body: tuple[Instruction, ...]

    @property
    def opcodes(self) -> list[str]:
        """First part of each opcode."""
        return [i.opcode.split(".")[0] for i in self.body]

    def count(self, *prefixes: str) -> int:
        """How many instructions start with one of the prefixes."""
        return sum(i.opcode.startswith(prefixes) for i in self.body)


@dataclass(frozen=True)
class Cost:
    """One kernel on one target."""

    target: str
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    ptx: str = field(repr=False)
    code: tuple[Instruction, ...] = field(repr=False)
    loops: tuple[Loop, ...] = field(repr=False)
    """Innermost loops: those that contain no other."""

    def threads_per_multiprocessor(self, threads: int, dynamic_shared: int = 0) -> int:
        """Resident threads by the registers and shared memory alone, for blocks of `threads`."""
        registers_per_warp = -(-self.registers * 32 // 256) * 256
        warps = threads // 32
        by_registers = 65536 // (registers_per_warp * warps)
        used = self.shared + dynamic_shared + (0 if self.target == "75" else 1024)
        by_shared = _SHARED_KIB[self.target] * 1024 // used if used > 1024 else 32
        most = {"75": 1024, "86": 1536, "89": 1536, "120": 1536}.get(self.target, 2048)
        return min(by_registers, by_shared, most // threads) * threads


def compile_ptx(function, signature, cc, *, fastmath=True) -> str:
    """PTX of a kernel function for one target."""
    return code_library(function, signature, fastmath=fastmath).get_asm_str(cc=cc)


def cost(function, signature, cc, **options) -> Cost:
    """Compile, assemble and disassemble a kernel for one target."""
    ptx = compile_ptx(function, signature, cc, **options)
    cubin, log = assemble(ptx, cc)
    code = disassemble(cubin)

    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found.group(1)) if found else 0

    return Cost(
        target=f"{cc[0]}{cc[1]}",
        registers=number(r"Used (\d+) registers"),
        spill_stores=number(r"(\d+) bytes spill stores"),
        spill_loads=number(r"(\d+) bytes spill loads"),
        stack=number(r"(\d+) bytes stack frame"),
        shared=number(r"(\d+) bytes smem"),
        ptx=ptx,
        code=code,
        loops=_innermost(code),
    )


def assemble(ptx: str, cc) -> tuple[bytes, str]:
    """cubin and the assembler's log."""
    from cuda.bindings import nvjitlink

    options = [f"-arch=sm_{cc[0]}{cc[1]}", "-verbose", "-Xptxas=-v"]
    handle = nvjitlink.create(len(options), options)
    try:
        code = ptx.encode() + b"\0"
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
        info = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, info)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), info.decode(errors="replace")


@cache
def nvdisasm() -> str:
    """Path of the disassembler of the CUDA wheels."""
    import nvidia

    found = [p for base in nvidia.__path__ for p in Path(base).glob("**/bin/nvdisasm")]
    if not found:
        raise FileNotFoundError("nvdisasm is not among the installed CUDA wheels")
    return str(found[0])


def disassemble(cubin: bytes) -> tuple[Instruction, ...]:
    """All instructions of a cubin, branch targets as addresses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "k.cubin"
        path.write_bytes(cubin)
        run = subprocess.run([nvdisasm(), str(path)], capture_output=True, text=True, check=True)
    labels: dict[str, int] = {}
    lines, pending = [], []
    for line in run.stdout.splitlines():
        label = _LABEL.match(line.strip())
        if label:
            pending.append(label.group(1))
            continue
        found = _INSTRUCTION.search(line)
        if found:
            address = int(found.group(1), 16)
            labels |= dict.fromkeys(pending, address)
            pending = []
            lines.append((address, found.group(2) or "", found.group(3), found.group(4).strip()))
    out = []
    for address, predicate, opcode, operands in lines:
        target = re.search(r"`\((\.L_x?_?\w+)\)", operands)
        text = f"{labels[target.group(1)]}" if target and target.group(1) in labels else operands
        out.append(Instruction(address, predicate, opcode, text))
    return tuple(out)


def _innermost(code) -> tuple[Loop, ...]:
    spans = []
    for instruction in code:
        if instruction.opcode.startswith("BRA") and instruction.operands.isdigit():
            target = int(instruction.operands)
            if target < instruction.address:
                spans.append((target, instruction.address))
    inner = [
        s for s in spans
        if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)
    ]  # fmt: skip
    return tuple(
        Loop(tuple(i for i in code if first <= i.address <= last)) for first, last in inner
    )
