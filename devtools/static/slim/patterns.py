"""Regular expressions of constants are compiled when a program is frozen."""

from __future__ import annotations

import ast
import re
import sys
from typing import Any, Final

from devtools.static.slim.trees import Function, add_import, plain

#: The nodes of an expression that has no effect but its value.
_PURE: Final = (
    ast.BinOp, ast.Constant, ast.FormattedValue, ast.JoinedStr, ast.Load, ast.Name, ast.UnaryOp,
    ast.operator, ast.unaryop,
)  # fmt: skip


def with_compiled_patterns(module: ast.Module) -> None:
    """Replace the calls of ``re.compile`` that are made when the module is imported.

    The code of a pattern is that of the interpreter that runs this.
    """
    if any(
        isinstance(statement, ast.Import) and any(alias.name == "re" for alias in statement.names)
        for statement in module.body
    ):
        patterns = _Patterns()
        patterns.visit(module)
        if patterns.has_any:
            add_import(module, {"pattern"})


class _Patterns(ast.NodeTransformer):
    def __init__(self) -> None:
        self.has_any = False
        self._known: dict[str, object] = {}

    def visit(self, node: ast.AST) -> ast.AST:
        """Leave functions alone, which run later."""
        return node if isinstance(node, Function) else super().visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Remember a constant."""
        self.generic_visit(node)
        target = node.targets[0]
        if isinstance(target, ast.Name) and (found := self._evaluated(node.value)) is not None:
            self._known[target.id] = found
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Replace a flag by its number."""
        if isinstance(node.value, ast.Name) and node.value.id == "re":
            flag = getattr(re, node.attr)
            if isinstance(flag, re.RegexFlag):
                return ast.copy_location(ast.Constant(int(flag)), node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace one pattern."""
        self.generic_visit(node)
        function = node.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and (function.value.id, function.attr) == ("re", "compile")
        ):
            return node
        words = [self._evaluated(word) for word in (*node.args, *(k.value for k in node.keywords))]
        if not isinstance(words[0], str | bytes) or None in words:
            return node
        self.has_any = True
        call = f"{plain('pattern')}{_pattern_words(words[0], words[1:])!r}"
        return ast.copy_location(ast.parse(call, mode="eval").body, node)

    def _evaluated(self, node: ast.expr) -> object:
        """Return the value of a constant expression; None: it is none."""
        if not all(isinstance(child, _PURE) for child in ast.walk(node)):
            return None
        names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
        if not names <= self._known.keys():
            return None
        return eval(ast.unparse(node), dict(self._known))  # noqa: S307


def _pattern_words(pattern: str | bytes, flags: list[object]) -> tuple[object, ...]:
    """Return what ``re`` calls ``_sre.compile`` with."""
    words: list[tuple[Any, ...]] = []

    class Recorder:
        MAGIC = MAXREPEAT = 0

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def compile(self, *arguments: object) -> object:
            words.append(arguments)
            return engine.compile(*arguments)

    compiler: Any = sys.modules["re._compiler"]
    engine = compiler._sre
    compiler._sre = Recorder()
    try:
        re.purge()
        re.compile(pattern, *flags)  # type: ignore[call-overload]
    finally:
        compiler._sre = engine
    ((text, flags_, code, groups, *names),) = words
    # Those of some are numbers with names.
    return (text, flags_, [int(word) for word in code], groups, *names)
