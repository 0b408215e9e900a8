"""Annotations are left out, and what ``typing`` is imported for at run time."""

from __future__ import annotations

import ast
from typing import Final

from devtools.static.slim.trees import add_import, imported, loaded, plain

#: Bases of classes that read their annotations.
_READERS: Final = ("NamedTuple", "TypedDict")


def without_annotations(module: ast.Module) -> None:
    """Drop annotations, protocols' base, type variables, casts and blocks for type checkers."""
    typing = imported(module, "typing")
    annotations = _Annotations(typing)
    annotations.visit(module)
    if annotations.has_generic:
        add_import(module, {"Generic"})
    names = loaded(module)
    module.body = [s for s in module.body if not _is_unused_variable(s, typing, names)]


class _Annotations(ast.NodeTransformer):
    def __init__(self, typing: dict[str, str]) -> None:
        self._typing = typing
        self.has_generic = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Leave a class alone that reads its annotations; a protocol is a class like any other."""
        reads = bool(node.decorator_list) or any(
            isinstance(base, ast.Name) and base.id in _READERS for base in node.bases
        )
        if not node.decorator_list:
            node.bases = [base for base in node.bases if not self._is_protocol(base)]
        for place, base in enumerate(node.bases):
            if isinstance(base, ast.Subscript) and self._is(base.value, "Generic"):
                self.has_generic = True
                node.bases[place] = ast.copy_location(ast.Name(plain("Generic"), ast.Load()), base)
        kept = [s for s in node.body if isinstance(s, ast.AnnAssign)] if reads else []
        body: list[ast.stmt] = []
        for statement in node.body:
            if statement in kept:
                body.append(statement)
            else:
                body += self._visited(statement)
        node.body = body or [ast.copy_location(ast.Pass(), node)]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Drop the annotations of a function and of its variables."""
        node.returns = None
        arguments = node.args
        for argument in (
            *arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ):  # fmt: skip
            argument.annotation = None
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.copy_location(ast.Pass(), node)]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Make it an assignment, or nothing; a local name without a value stays local."""
        if node.value is None:
            return None
        self.generic_visit(node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        """Drop what only a type checker reads."""
        if self._is(node.test, "TYPE_CHECKING"):
            return [new for statement in node.orelse for new in self._visited(statement)]
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.copy_location(ast.Pass(), node)]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace a cast by its value."""
        self.generic_visit(node)
        return node.args[1] if self._is(node.func, "cast") and len(node.args) == 2 else node

    def _visited(self, statement: ast.stmt) -> list[ast.stmt]:
        new = self.visit(statement)
        return new if isinstance(new, list) else [new] if new is not None else []

    def _is_protocol(self, base: ast.expr) -> bool:
        return self._is(base.value if isinstance(base, ast.Subscript) else base, "Protocol")

    def _is(self, node: ast.AST, name: str) -> bool:
        return isinstance(node, ast.Name) and self._typing.get(node.id) == name


def _is_unused_variable(statement: ast.stmt, typing: dict[str, str], names: set[str]) -> bool:
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and typing.get(statement.value.func.id) == "TypeVar"
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id not in names
    )
