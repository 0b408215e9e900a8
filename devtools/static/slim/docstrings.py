"""Docstrings are left out."""

from __future__ import annotations

import ast


def without_docstrings(module: ast.Module) -> None:
    """Drop the docstrings of the module, its classes and functions."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                empty = (
                    [] if isinstance(node, ast.Module) else [ast.copy_location(ast.Pass(), first)]
                )
                node.body[:1] = [] if node.body[1:] else empty
