"""Imports that are made when what they import is used, and imports that are not needed."""

from __future__ import annotations

import ast
import copy
import itertools
from typing import Final

from devtools.static.slim.trees import add_import, eager, loaded, plain

#: Modules that a first answer needs nothing of, or little.
LATE: Final = frozenset(
    {
        "ast", "base64", "copy", "dis", "enum", "fnmatch", "glob", "inspect", "ipaddress",
        "keyword", "linecache", "locale", "opcode", "pathlib", "random", "re", "secrets", "shutil",
        "string", "tempfile", "textwrap", "token", "tokenize", "traceback", "urllib.parse",
        "warnings",
    }
)  # fmt: skip


def without_unused_imports(module: ast.Module) -> None:
    """Drop what the module imports at its top level, and neither uses nor names in ``__all__``."""
    used = loaded(module) | _exported(module)
    for statement in list(module.body):
        if isinstance(statement, ast.Import | ast.ImportFrom) and not _is_future(statement):
            statement.names = [
                alias
                for alias in statement.names
                if alias.name == "*"
                or alias.asname == alias.name
                or (alias.asname or alias.name).partition(".")[0] in used
            ]
            if not statement.names:
                module.body.remove(statement)


def _exported(module: ast.Module) -> set[str]:
    return {
        node.value
        for statement in module.body
        if isinstance(statement, ast.Assign | ast.AugAssign)
        and any(isinstance(n, ast.Name) and n.id == "__all__" for n in ast.walk(statement))
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def with_late_imports(module: ast.Module) -> None:
    """Import modules of ``LATE`` on the first use, where only functions use them."""
    _make_late(module)
    early = {
        node.id
        for statement in module.body
        for node in eager(statement)
        if isinstance(node, ast.Name)
    }
    bound = _bound(module)
    renamed: dict[str, ast.expr] = {}
    body: list[ast.stmt] = []
    for statement in module.body:
        if isinstance(statement, ast.Import):
            body += _split(statement, early, bound)
        elif (
            isinstance(statement, ast.ImportFrom)
            and statement.module in LATE
            and not statement.level
        ):
            body += _split_from(statement, early, bound, renamed)
        else:
            body.append(statement)
    if len(body) == len(module.body) and all(
        a is b for a, b in zip(body, module.body, strict=True)
    ):
        return
    module.body = body
    if renamed:
        _Renaming(renamed).visit(module)
    add_import(module, {"Late"})


def _make_late(module: ast.Module) -> None:
    """Where a module makes an object of an imported class and deletes that: make it on use."""
    names = {
        alias.asname or alias.name
        for statement in module.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for first, second in itertools.pairwise(list(module.body)):
        match first, second:
            case (
                ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Call(func=ast.Name(id=maker), args=[], keywords=[]) as call,
                ),
                ast.Delete(targets=[ast.Name(id=deleted)]),
            ) if deleted == maker and maker in names:
                module.body.remove(first)
                module.body.remove(second)
                _Renaming({name: call}).visit(module)


def _split(statement: ast.Import, early: set[str], bound: list[str]) -> list[ast.stmt]:
    late: list[ast.stmt] = []
    kept = []
    for alias in statement.names:
        name = (alias.asname or alias.name).partition(".")[0]
        if alias.name in LATE and name not in early and bound.count(name) == 1:
            package = None if alias.asname else name
            late.append(_late(statement, name, alias.name, package))
        else:
            kept.append(alias)
    if not late:
        return [statement]
    statement.names = kept
    return [*([statement] if kept else []), *late]


def _split_from(
    statement: ast.ImportFrom, early: set[str], bound: list[str], renamed: dict[str, ast.expr]
) -> list[ast.stmt]:
    assert statement.module is not None
    variable = plain(statement.module.replace(".", "_"))
    kept = []
    for alias in statement.names:
        name = alias.asname or alias.name
        if alias.name != "*" and name not in early and bound.count(name) == 1:
            renamed[name] = ast.Attribute(ast.Name(variable, ast.Load()), alias.name, ast.Load())
        else:
            kept.append(alias)
    if len(kept) == len(statement.names):
        return [statement]
    statement.names = kept
    late = _late(statement, variable, statement.module, None)
    return [*([statement] if kept else []), late]


def _late(at: ast.stmt, variable: str, name: str, package: str | None) -> ast.stmt:
    text = f"{variable} = {plain('Late')}({variable!r}, {name!r}, globals(), {package!r})"
    return ast.copy_location(ast.parse(text).body[0], at)


class _Renaming(ast.NodeTransformer):
    def __init__(self, renamed: dict[str, ast.expr]) -> None:
        self._renamed = renamed

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Read it from its module."""
        new = self._renamed.get(node.id)
        if new is None:
            return node
        fresh = copy.deepcopy(new)
        for part in ast.walk(fresh):
            ast.copy_location(part, node)
        return fresh


def _bound(module: ast.Module) -> list[str]:
    """Return every name that is bound anywhere, once for each place."""
    names = []
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.append(name)
            case ast.arg(arg=name):
                names.append(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.append(name)
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                names.append(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.append(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names += [(alias.asname or alias.name).partition(".")[0] for alias in aliases]
            case ast.Global(names=some) | ast.Nonlocal(names=some):
                names += some
    return names


def _is_future(statement: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
