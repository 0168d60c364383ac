"""PTX text into C: one statement per instruction, registers as locals, labels as labels.

Only what our kernels use is known; anything else is refused by name. Nothing is looked at but the
text, as an assembler would: meanings are those of NVIDIA's PTX manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ptxhost._arithmetic import Arithmetic
from ptxhost._operands import C, UnknownPtxError

_WAITS = ("bar", "vote", "shfl")
_VOTES = {"all": 0, "any": 1, "uni": 2, "ballot": 3}
_SHUFFLES = {"up": 1, "down": 2, "bfly": 3, "idx": 0}
_JOINED = {"plus": "0", "popc": "1", "and": "2", "or": "3"}


@dataclass
class Program:
    """A kernel in C, and what a launch of it needs to know."""

    entry: str
    parameters: list[str] = field(default_factory=list)
    """PTX types, in order"""
    static_shared: int = 0
    """bytes, before the dynamic ones"""
    waits: bool = False
    """whether threads ever wait for each other"""
    source: str = ""


def translate(ptx: str) -> Program:
    """Return the only entry of a PTX module as C."""
    ptx = re.sub(r"/\*.*?\*/|//[^\n]*", "", ptx, flags=re.DOTALL)
    found = re.findall(r"\.visible \.entry ([\w$]+)\s*\(([^)]*)\)([^{]*)\{", ptx)
    if len(found) != 1 or ".func" in ptx:
        raise UnknownPtxError(f"{len(found)} entries, or functions that are not inlined")
    name, parameters, _ = found[0]
    program = Program(name)
    head, _, body = ptx.partition(f".entry {name}")
    _, _, body = body.partition("{")
    body = body[: body.rindex("}")]
    translator = _Translator(program)
    for place, text in enumerate(parameters.split(",")):
        _, kind, *_, key = text.split()  # .param .u64 .ptr .align 1 NAME
        if kind == ".align":
            raise UnknownPtxError(text.strip())
        program.parameters.append(kind[1:])
        translator.places[key] = place
    translator.variables(head)
    statements = "\n".join(translator.block(body))
    program.source = f'#include "prelude.h"\nvoid ptx_entry(void **a)\n{{\n{statements}\n}}\n'
    return program


def _pieces(body: str) -> Iterator[str]:
    """Statements without their semicolons, labels with their colons, braces of scopes."""
    text = ""
    for character in body:
        if character in "{}" and not text.strip():
            yield character
            text = ""
        elif character == ";":
            yield " ".join(text.split())
            text = ""
        elif character == ":" and re.fullmatch(r"\s*[\w$]+", text):
            yield f"{text.strip()}:"
            text = ""
        else:
            text += character


class _Translator(Arithmetic):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def variables(self, head: str) -> None:
        """Give shared variables of the module their places; the dynamic ones lie behind."""
        dynamic = []
        for line in head.split(";"):
            words = line.split()
            if ".shared" not in words:
                if ".const" in words or ".local" in words:
                    raise UnknownPtxError(line.strip())
                continue
            found = re.search(r"\.align (\d+) \.b8 ([\w$]+)\[(\d*)\]", line)
            if not found:
                raise UnknownPtxError(line.strip())
            align, name, size = int(found[1]), found[2], found[3]
            if size:
                at = -(-self.program.static_shared // align) * align
                self.shared[name] = at
                self.program.static_shared = at + int(size)
            else:
                dynamic.append(name)
        self.program.static_shared = -(-self.program.static_shared // 16) * 16
        self.shared |= dict.fromkeys(dynamic, self.program.static_shared)

    def block(self, body: str) -> list[str]:
        """C statements of a function's body."""
        out = []
        for text in _pieces(body):
            if text in "{}":
                out.append(text)
            elif text.endswith(":"):
                out.append(f"{text.replace('$', '')};")
            elif text.startswith(".reg"):
                out.append(self.declare(text))
            elif text.startswith((".loc", ".pragma", ".file")):
                continue
            elif text.startswith("."):
                raise UnknownPtxError(text)
            else:
                out.append(self.instruction(text))
        return out

    def declare(self, text: str) -> str:
        """Registers as uninitialised locals: whoever reads one too early reads anything."""
        _, kind, name = text.split(maxsplit=2)
        kind, name = kind[1:], name.lstrip("%")
        several = re.fullmatch(r"([\w$]+)<(\d+)>", name)
        names = [f"{several[1]}{k}" for k in range(int(several[2]))] if several else [name]
        self.registers |= dict.fromkeys(names, kind)
        return f"{C[kind]} {', '.join(names)};"

    def instruction(self, text: str) -> str:
        guard, rest = "", text
        if text.startswith("@"):
            predicate, _, rest = text.partition(" ")
            negated = predicate.startswith("@!")
            guard = f"if ({'!' * negated}{predicate.lstrip('@!%')}) "
        opcode, _, tail = rest.partition(" ")
        name, *modifiers = opcode.split(".")
        operands = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", tail)] if tail else []
        method = getattr(self, f"_{name}", None)
        code = method(modifiers, operands) if method else None
        if code is None:
            raise UnknownPtxError(text)
        self.program.waits |= name in _WAITS
        return f"{guard}{{ {code} }}"

    # -- memory ------------------------------------------------------------------------------------

    def address(self, operand: str) -> tuple[str, int]:
        """Base and offset of [base+offset]."""
        found = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
        if not found:
            raise UnknownPtxError(operand)
        return found[1], int(found[2] or 0)

    def _ld(self, modifiers: list[str], operands: list[str]) -> str | None:
        *space, kind = modifiers
        base, offset = self.address(operands[1])
        if space == ["param"]:
            place = f"(char *)a[{self.places[base]}] + {offset}"
        else:
            place = self.place(space, base, offset, kind, "reads")
        return self.assign(operands[0], kind, f"*({C[kind]} *)({place})") if place else None

    def _st(self, modifiers: list[str], operands: list[str]) -> str | None:
        *space, kind = modifiers
        place = self.place(space, *self.address(operands[0]), kind, "writes")
        if not place:
            return None
        return f"{C[kind]} v = {self.value(operands[1], kind)}; *({C[kind]} *)({place}) = v;"

    def place(self, space: list[str], base: str, offset: int, kind: str, how: str) -> str | None:
        space = [s for s in space if s not in {"nc", "volatile", "relaxed", "weak"}]
        if space not in ([], ["global"], ["shared"]):
            return None
        name = space[0] if space else "global"
        address = f"{self.value(base, 'u64')} + {offset}"
        new = ", &v" if how == "writes" else ""
        return f"{name}_{how}({address}, sizeof({C[kind]}){new})"

    # -- control, warps, blocks --------------------------------------------------------------------

    def _bra(self, modifiers: list[str], operands: list[str]) -> str | None:
        return f"goto {operands[0].replace('$', '')};"

    def _ret(self, modifiers: list[str], operands: list[str]) -> str | None:
        return "return;"

    def _membar(self, modifiers: list[str], operands: list[str]) -> str | None:
        return ";"

    def _bar(self, modifiers: list[str], operands: list[str]) -> str | None:
        if modifiers == ["warp", "sync"]:
            return f"warp_sync({self.value(operands[0], 'u32')});"
        if modifiers == ["sync"] and operands == ["0"]:
            return "block_sync(0, 0);"
        if modifiers[0] == "red" and operands[1] == "0":
            mode = _JOINED[modifiers[1]]
            code = f"block_sync({mode}, {self.value(operands[2], 'pred')})"
            return self.assign(operands[0], modifiers[2], code)
        return None

    def _vote(self, modifiers: list[str], operands: list[str]) -> str | None:
        _, how, kind = modifiers
        asked, mask = self.value(operands[1], "pred"), self.value(operands[2], "u32")
        answer = f"ch_vote({mask}, {_VOTES[how]}, {asked})"
        return self.assign(
            operands[0], kind, f"(uint32_t){answer}" if how == "ballot" else f"{answer} >> 32"
        )

    def _shfl(self, modifiers: list[str], operands: list[str]) -> str | None:
        _, how, kind = modifiers
        to, _, inside = operands[0].partition("|")
        value, lane, clamp, mask = (self.value(o, "u32") for o in operands[1:])
        code = f"uint64_t w = ch_shuffle({mask}, {_SHUFFLES[how]}, {value}, {lane}, {clamp});"
        code += self.assign(to, kind, "(uint32_t)w")
        return code + (self.assign(inside, "pred", "w >> 32") if inside else "")
