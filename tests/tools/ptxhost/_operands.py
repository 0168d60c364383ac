"""Operands of PTX instructions as C expressions, and results into registers."""

from __future__ import annotations

import re

C = {
    "f32": "float", "f64": "double", "pred": "uint8_t",
    **{f"{k}{n}": f"{'int' if k == 's' else 'uint'}{n}_t" for k in "sub" for n in (8, 16, 32, 64)},
}  # fmt: skip
_SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid)\.([xyz])|%(laneid|dynamic_smem_size)")


class UnknownPtxError(NotImplementedError):
    """An instruction, type or directive that no kernel of ours has used so far."""


class Operands:
    """What an instruction can name: registers, shared variables, parameters, numbers."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.shared: dict[str, int] = {}
        self.registers: dict[str, str] = {}  # PTX type by name

    def value(self, operand: str, kind: str) -> str:
        """An operand as a C expression of a type."""
        if operand.startswith("!"):
            return f"(!{self.value(operand[1:], kind)})"
        special = _SPECIAL.fullmatch(operand)
        if special:
            call = f"ch_{special[1]}_{special[2]}()" if special[1] else f"ptx_{special[3]}()"
            return f"(({C[kind]}){call})"
        if operand.startswith("%"):
            name = operand[1:]
            held = self.registers[name]
            if held[0] == kind[0] == "f" or kind == "pred":
                return name
            if held[0] == "f":
                return f"(({C[kind]})bits_{held}({name}))"
            return f"as_{kind}({name})" if kind[0] == "f" else f"(({C[kind]}){name})"
        if operand in self.shared:
            return f"(({C[kind]}){self.shared[operand]}u)"
        if re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", operand):
            bits = f"0x{operand[2:]}u"
            return f"as_f32({bits})" if kind[0] == "f" else f"(({C[kind]}){bits})"
        if re.fullmatch(r"0[dD][0-9A-Fa-f]{16}", operand):
            return f"as_f64(0x{operand[2:]}ull)"
        if re.fullmatch(r"-?(0x)?[0-9A-Fa-f]+", operand):
            number = int(operand, 0)
            if kind == "pred":
                return str(int(number != 0))
            return f"(({C[kind]}){number & (1 << 64) - 1}ull)"
        raise UnknownPtxError(f"operand {operand}")

    def assign(self, operand: str, kind: str, expression: str) -> str:
        """Store an expression of a type in a register of any type."""
        if operand == "_":
            return f"(void)({expression});"
        name = operand.lstrip("%")
        held = self.registers[name]
        if held[0] != "f" and kind[0] == "f":
            expression = f"bits_{kind}({expression})"
        elif held[0] == "f" and kind[0] != "f":
            expression = f"as_{held}({expression})"
        return f"{name} = {expression};"

    def floats(self, modifiers: list[str], operands: list[str]) -> list[str]:
        """Inputs of a floating-point instruction, subnormals flushed where it says so."""
        kind = modifiers[-1]
        values = [self.value(o, kind) for o in operands]
        return [f"ftz({v})" for v in values] if "ftz" in modifiers else values

    def result(self, modifiers: list[str], to: str, expression: str, *, sat: bool = False) -> str:
        kind = modifiers[-1]
        if not set(modifiers[:-1]) <= {"rn", "ftz", "approx", "full", "sat"}:
            raise UnknownPtxError(".".join(modifiers))
        if "sat" in modifiers and not sat:
            expression = f"saturated({expression})"
        if "ftz" in modifiers:
            expression = f"ftz({expression})"
        return self.assign(to, kind, expression)
