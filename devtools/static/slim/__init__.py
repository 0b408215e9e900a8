"""Python code that does the same and starts faster: what freezing makes of a module's source."""

from __future__ import annotations

import ast

from devtools.static.slim.annotations import without_annotations
from devtools.static.slim.classes import with_plain_classes
from devtools.static.slim.constants import with_constants
from devtools.static.slim.docstrings import without_docstrings
from devtools.static.slim.imports import with_late_imports, without_unused_imports
from devtools.static.slim.patterns import with_compiled_patterns


def slim(source: str | bytes, *, is_package: bool = False) -> ast.Module:
    """Return the module of ``source`` in the form that is frozen.

    Annotations, and imports that only annotations need, are dropped where the module says by
    ``from __future__ import annotations`` that annotations are not evaluated.
    """
    module = ast.parse(source)
    is_ours = _has_unevaluated_annotations(module)
    if "__doc__" not in _names_and_attributes(module):
        without_docstrings(module)
    with_plain_classes(module)
    if is_ours:
        without_annotations(module)
    with_constants(module)
    with_compiled_patterns(module)
    if is_ours and not is_package:
        without_unused_imports(module)
    with_late_imports(module)
    return ast.fix_missing_locations(module)


def _has_unevaluated_annotations(module: ast.Module) -> bool:
    return any(
        isinstance(statement, ast.ImportFrom)
        and statement.module == "__future__"
        and any(alias.name == "annotations" for alias in statement.names)
        for statement in module.body
    )


def _names_and_attributes(module: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found
