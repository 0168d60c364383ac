"""Loops written out in the source, so that small arrays become registers on any compiler.

A local array lives in registers only if all its indices are constants in the end. Compilers unroll
plain loops over a constant range, but not nests whose inner length depends on the outer index.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import linecache
import textwrap
import threading
from collections.abc import Callable
from typing import Any

_SERIAL = itertools.count()
_ONE_AT_A_TIME = threading.RLock()
"""CPython 3.11 counts how deep trees are nested for all threads together: two at it fail."""


def unrolled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with constants of its closure filled in.

    `for k in fixed(...)` becomes its iterations; `if` on constants becomes its branch;
    integer expressions of constants, calls of pure functions among them, become numbers. Constants
    are what the enclosing function gave a value; names that the function itself assigns are none.
    """
    with _ONE_AT_A_TIME:
        return _unrolled(function)


def _unrolled(function: Callable[..., Any]) -> Callable[..., Any]:
    scope = inspect.getclosurevars(function)
    names = {**scope.globals, **scope.nonlocals}
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    pure = {k: v for k, v in names.items() if isinstance(v, bool | int | str) or _is_pure(v)}
    definition.body = _Unroller(pure).block(definition.body)
    module = ast.fix_missing_locations(ast.Module([definition], []))
    filename = f"<{function.__module__}.{function.__qualname__} unrolled {next(_SERIAL)}>"
    text = ast.unparse(module)
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace = {**function.__globals__, **names}
    exec(compile(text, filename, "exec"), namespace)  # noqa: S102 - our own source, rewritten
    result: Callable[..., Any] = namespace[definition.name]
    return result


def fixed(*bounds: int) -> range:
    """As range; in an unrolled function the loop over it is written out."""
    return range(*bounds)


def pure(function: Callable[..., int]) -> Callable[..., int]:
    """Mark a function of integers whose calls may be replaced by their values."""
    function.__dict__["pure"] = True
    return function


def _is_pure(value: Any) -> bool:
    return inspect.isfunction(value) and getattr(value, "pure", False)


class _Unroller(ast.NodeTransformer):
    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in statements:
            new = self.visit(copy.deepcopy(statement))
            out += new if isinstance(new, list) else [new]
        return out

    def visit_For(self, node: ast.For) -> Any:
        bounds = self._range(node.iter)
        if bounds is None:
            node.iter = self.visit(node.iter)
            node.body = self.block(node.body)
            return node
        assert isinstance(node.target, ast.Name)
        out = []
        for value in bounds:
            out += _Unroller({**self.known, node.target.id: value}).block(node.body)
        return out or [ast.Pass()]

    def visit_If(self, node: ast.If) -> Any:
        known, value = self._value(node.test)
        if known:
            return self.block(node.body if value else node.orelse) or [ast.Pass()]
        node.test = self.visit(node.test)
        node.body = self.block(node.body)
        node.orelse = self.block(node.orelse)
        return node

    def visit_While(self, node: ast.While) -> Any:
        node.test = self.visit(node.test)
        node.body = self.block(node.body)
        return node

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            known, value = self._value(node)
            if known and isinstance(value, bool | int):
                return ast.Constant(value)
        return super().visit(node)

    def _range(self, node: ast.expr) -> range | None:
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "fixed"):
            return None
        return range(*(self._value(argument)[1] for argument in node.args))

    def _value(self, node: ast.expr) -> tuple[bool, Any]:
        """Whether all names in an expression are known, and what it amounts to."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id not in self.known:
                return False, None
            if isinstance(part, ast.Attribute | ast.Subscript | ast.Lambda):
                return False, None
        code = compile(ast.fix_missing_locations(ast.Expression(copy.deepcopy(node))), "", "eval")
        return True, eval(code, {"__builtins__": {}}, dict(self.known))  # noqa: S307 - our source
