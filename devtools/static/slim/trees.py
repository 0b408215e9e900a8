"""What the steps of slimming ask of a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

#: The module of ``plain.py`` in the static file.
PLAIN: Final = "_plain"
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def statements(source: str, at: ast.AST) -> list[ast.stmt]:
    """Return the statements of ``source``; a traceback shows the line of ``at`` for them."""
    body = ast.parse(source).body
    for statement in body:
        for node in ast.walk(statement):
            ast.copy_location(node, at)
    return body


def add_import(module: ast.Module, names: set[str]) -> None:
    """Import ``names`` of the module ``_plain`` under names that no source has."""
    if not names:
        return
    aliases = ", ".join(f"{name} as {plain(name)}" for name in sorted(names))
    place = sum(
        isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        for statement in module.body
    )
    first = module.body[place]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        place += 1
    module.body[place:place] = statements(f"from {PLAIN} import {aliases}", first)


def plain(name: str) -> str:
    """Return the name that ``name`` of ``_plain`` has in a slimmed module."""
    return f"_plain_{name}"


def imported(module: ast.Module, source: str) -> dict[str, str]:
    """Return what the top level of ``module`` imports by name from ``source``, by alias."""
    return {
        alias.asname or alias.name: alias.name
        for statement in module.body
        if isinstance(statement, ast.ImportFrom)
        and statement.module == source
        and not statement.level
        for alias in statement.names
    }


def eager(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below ``node`` that run when the module is imported."""
    if isinstance(node, Function):
        outside: list[ast.AST] = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        if not isinstance(node, ast.Lambda):
            outside += node.decorator_list
            arguments = [
                *node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs,
                *filter(None, (node.args.vararg, node.args.kwarg)),
            ]  # fmt: skip
            outside += filter(None, [*(a.annotation for a in arguments), node.returns])
    else:
        outside = list(ast.iter_child_nodes(node))
    for child in outside:
        yield child
        yield from eager(child)


def loaded(module: ast.AST) -> set[str]:
    """Return the names that are read anywhere in ``module``."""
    return {
        node.id
        for node in ast.walk(module)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
