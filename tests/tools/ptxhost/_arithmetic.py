"""PTX instructions that compute, choose, copy and convert, as C.

A method is named after its opcode; it takes the modifiers and the operands, and returns C, or None
for what it doesn't know.
"""

from __future__ import annotations

from ptxhost._operands import C, Operands

_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMPARE |= {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_BINARY = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}


class Arithmetic(Operands):
    """Instructions that touch registers only."""

    def _two(self, name: str, modifiers: list[str], operands: list[str]) -> str | None:
        kind, to = modifiers[-1], operands[0]
        if kind[0] == "f":
            a, b = self.floats(modifiers, operands[1:])
            return self.result(modifiers, to, f"{a} {_BINARY[name]} {b}")
        if modifiers[:-1]:
            return None
        unsigned = kind if kind == "pred" else f"u{kind[1:]}"
        a, b = (self.value(o, unsigned) for o in operands[1:])
        return self.assign(to, unsigned, f"({C[unsigned]})({a} {_BINARY[name]} {b})")

    def _add(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._two("add", modifiers, operands)

    def _sub(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._two("sub", modifiers, operands)

    def _and(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._two("and", modifiers, operands)

    def _or(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._two("or", modifiers, operands)

    def _xor(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._two("xor", modifiers, operands)

    def _mul(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        if kind[0] == "f":
            return self._two("mul", modifiers, operands)
        return self._product(modifiers, operands[0], operands[1:3], "")

    def _mad(self, modifiers: list[str], operands: list[str]) -> str | None:
        wide = modifiers[0] == "wide"
        kind = f"{modifiers[-1][0]}{2 * int(modifiers[-1][1:])}" if wide else modifiers[-1]
        if kind[0] == "f":
            return None
        added = f" + {self.value(operands[3], kind)}"
        return self._product(modifiers, operands[0], operands[1:3], added)

    def _product(self, modifiers: list[str], to: str, factors: list[str], added: str) -> str | None:
        part, kind = modifiers
        size = int(kind[1:])
        wide = f"{'unsigned ' if kind[0] != 's' else ''}__int128"
        a, b = (f"({wide}){self.value(o, kind)}" for o in factors)
        if part == "wide":
            kind = f"{kind[0]}{2 * size}"
        shift = f" >> {size}" if part == "hi" else ""
        return self.assign(to, kind, f"({C[kind]})(({C[kind]})(({a} * {b}){shift}){added})")

    def _fma(self, modifiers: list[str], operands: list[str]) -> str | None:
        a, b, c = self.floats(modifiers, operands[1:])
        name = "fmaf" if modifiers[-1] == "f32" else "fma"
        return self.result(modifiers, operands[0], f"{name}({a}, {b}, {c})")

    def _div(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        if kind[0] == "f":
            a, b = self.floats(modifiers, operands[1:])
            rough = "approx" in modifiers or "full" in modifiers
            return self.result(
                modifiers, operands[0], f"rough({a} / {b}, 2)" if rough else f"{a} / {b}"
            )
        a, b = (self.value(o, kind) for o in operands[1:])
        return self.assign(operands[0], kind, f"({b} ? ({C[kind]})({a} / {b}) : ({C[kind]})-1)")

    def _rem(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a, b = (self.value(o, kind) for o in operands[1:])
        return self.assign(operands[0], kind, f"({b} ? ({C[kind]})({a} % {b}) : {a})")

    def _rsqrt(self, modifiers: list[str], operands: list[str]) -> str | None:
        (a,) = self.floats(modifiers, operands[1:])
        return self.result(modifiers, operands[0], f"rough(1 / sqrt((double){a}), 1)")

    def _sqrt(self, modifiers: list[str], operands: list[str]) -> str | None:
        (a,) = self.floats(modifiers, operands[1:])
        exact = f"sqrt((double){a})"
        return self.result(
            modifiers, operands[0], exact if "rn" in modifiers else f"rough({exact}, 1)"
        )

    def _rcp(self, modifiers: list[str], operands: list[str]) -> str | None:
        (a,) = self.floats(modifiers, operands[1:])
        exact = f"1 / ({C[modifiers[-1]]}){a}"
        return self.result(
            modifiers, operands[0], exact if "rn" in modifiers else f"rough({exact}, 1)"
        )

    def _extreme(self, name: str, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        if kind[0] == "f":
            a, b = self.floats(modifiers, operands[1:])
            suffix = "f" if kind == "f32" else ""
            return self.result(modifiers, operands[0], f"f{name}{suffix}({a}, {b})")
        a, b = (self.value(o, kind) for o in operands[1:])
        test = "<" if name == "min" else ">"
        return self.assign(operands[0], kind, f"({a} {test} {b} ? {a} : {b})")

    def _min(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._extreme("min", modifiers, operands)

    def _max(self, modifiers: list[str], operands: list[str]) -> str | None:
        return self._extreme("max", modifiers, operands)

    def _neg(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        if kind[0] == "f":
            (a,) = self.floats(modifiers, operands[1:])
            return self.result(modifiers, operands[0], f"-{a}")
        return self.assign(operands[0], kind, f"({C[kind]})-{self.value(operands[1], kind)}")

    def _abs(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        if kind[0] == "f":
            (a,) = self.floats(modifiers, operands[1:])
            return self.result(modifiers, operands[0], f"fabs({a})")
        a = self.value(operands[1], kind)
        return self.assign(operands[0], kind, f"({a} < 0 ? ({C[kind]})-{a} : {a})")

    # -- bits --------------------------------------------------------------------------------------

    def _not(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a = self.value(operands[1], kind)
        return self.assign(operands[0], kind, f"!{a}" if kind == "pred" else f"({C[kind]})~{a}")

    def _shl(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a, n = self.value(operands[1], kind), self.value(operands[2], "u32")
        size = int(kind[1:])
        return self.assign(operands[0], kind, f"({n} < {size} ? ({C[kind]})({a} << {n}) : 0)")

    def _shr(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a, n = self.value(operands[1], kind), self.value(operands[2], "u32")
        size = int(kind[1:])
        beyond = f"({C[kind]})({a} >> {size - 1})" if kind[0] == "s" else "0"
        return self.assign(operands[0], kind, f"({n} < {size} ? {a} >> {n} : {beyond})")

    def _popc(self, modifiers: list[str], operands: list[str]) -> str | None:
        a = self.value(operands[1], f"u{modifiers[-1][1:]}")
        return self.assign(operands[0], "u32", f"__builtin_popcountll({a})")

    def _bfi(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a, b = (self.value(o, "u64") for o in operands[1:3])
        at, n = (self.value(o, "u32") for o in operands[3:])
        return self.assign(
            operands[0], kind, f"({C[kind]})inserted({a}, {b}, {at}, {n}, {kind[1:]})"
        )

    def _prmt(self, modifiers: list[str], operands: list[str]) -> str | None:
        if modifiers != ["b32"]:
            return None
        a, b, c = (self.value(o, "u32") for o in operands[1:])
        return self.assign(operands[0], "u32", f"permuted({a}, {b}, {c})")

    # -- choices, copies, conversions --------------------------------------------------------------

    def _setp(self, modifiers: list[str], operands: list[str]) -> str | None:
        test, kind = modifiers[0], modifiers[-1]
        if len([m for m in modifiers if m != "ftz"]) != 2:
            return None
        if kind[0] == "f":
            a, b = self.floats(modifiers, operands[1:])
            ordered = f"({a} == {a} && {b} == {b})"
            if test in {"num", "nan"}:
                code = ordered if test == "num" else f"!{ordered}"
            elif test in _COMPARE:
                code = f"{ordered} && {a} {_COMPARE[test]} {b}"
            else:
                code = f"!{ordered} || {a} {_COMPARE[test.removesuffix('u')]} {b}"
        else:
            a, b = (self.value(o, kind) for o in operands[1:])
            code = f"{a} {_COMPARE[test]} {b}"
        first, _, second = operands[0].partition("|")
        both = self.assign(first, "pred", code)
        return both + (self.assign(second, "pred", f"!{first[1:]}") if second else "")

    def _selp(self, modifiers: list[str], operands: list[str]) -> str | None:
        kind = modifiers[-1]
        a, b = (self.value(o, kind) for o in operands[1:3])
        chosen = f"({self.value(operands[3], 'pred')} ? {a} : {b})"
        return self.assign(operands[0], kind, chosen)

    def _mov(self, modifiers: list[str], operands: list[str]) -> str | None:
        (kind,) = modifiers
        to, given = operands
        size = int(kind[1:]) if kind[1:].isdigit() else 0
        if to.startswith("{"):
            parts = [p.strip() for p in to.strip("{}").split(",")]
            part = size // len(parts)
            return "".join(
                self.assign(p, f"b{part}", f"{self.value(given, kind)} >> {k * part}")
                for k, p in enumerate(parts)
            )
        if given.startswith("{"):
            parts = [p.strip() for p in given.strip("{}").split(",")]
            part = size // len(parts)
            joined = " | ".join(
                f"({C[kind]}){self.value(p, f'b{part}')} << {k * part}" for k, p in enumerate(parts)
            )
            return self.assign(to, kind, joined)
        return self.assign(to, kind, self.value(given, kind))

    def _cvta(self, modifiers: list[str], operands: list[str]) -> str | None:
        if modifiers not in (["to", "global", "u64"], ["global", "u64"]):
            return None
        return self.assign(operands[0], "u64", self.value(operands[1], "u64"))

    def _cvt(self, modifiers: list[str], operands: list[str]) -> str | None:
        *how, to, kind = modifiers
        a = self.value(operands[1], kind)
        if "ftz" in how:
            how.remove("ftz")
            a = f"ftz({a})"
        if kind[0] == "f" and to[0] != "f":
            rounding = {"rzi": "trunc", "rni": "rint", "rmi": "floor", "rpi": "ceil"}
            if len(how) != 1 or how[0] not in rounding:
                return None
            return self.assign(operands[0], to, f"to_{to}({rounding[how[0]]}((double){a}))")
        if how not in ([], ["rn"]):
            return None
        return self.assign(operands[0], to, f"({C[to]}){a}")
