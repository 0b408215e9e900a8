"""Numbers in the place of enums that the standard library makes of them, each time it starts."""

from __future__ import annotations

import ast
import http

from devtools.static.slim.trees import imported, loaded


def with_constants(module: ast.Module) -> None:
    """Replace HTTP statuses, dictionaries of them, and the enums of ``socket`` and ``signal``.

    The enums of ``ssl`` have members that are in no other module. They stay.
    """
    _Statuses(imported(module, "http")).visit(module)
    enums = imported(module, "enum")
    conversion = _Conversion(enums)
    conversion.visit(module)
    if conversion.has_any and not enums.keys() & loaded(module):
        module.body = [
            statement
            for statement in module.body
            if not (isinstance(statement, ast.ImportFrom) and statement.module == "enum")
        ]


class _Statuses(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._is_imported = names.get("HTTPStatus") == "HTTPStatus"

    def visit(self, node: ast.AST) -> ast.AST:
        """Replace one expression."""
        if not self._is_imported or not isinstance(node, ast.Attribute | ast.DictComp):
            return super().visit(node)  # type: ignore[no-any-return]
        if isinstance(node, ast.DictComp):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if "HTTPStatus" not in names or len(names) > 2:
                return node
            made = eval(ast.unparse(node), {"HTTPStatus": http.HTTPStatus})  # noqa: S307
            if not all(type(part) in (int, str) for pair in made.items() for part in pair):
                return node
            return ast.copy_location(ast.parse(repr(made), mode="eval").body, node)
        if isinstance(node.value, ast.Name) and node.value.id == "HTTPStatus":
            return ast.copy_location(ast.Constant(int(http.HTTPStatus[node.attr])), node)
        return super().generic_visit(node)


class _Conversion(ast.NodeTransformer):
    def __init__(self, enums: dict[str, str]) -> None:
        self._enums = enums
        self.has_any = False

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Have the numbers of a module stay numbers, and ``int`` in the place of their enum."""
        match node.value:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=base), attr="_convert_"),
                args=[ast.Constant(value=str(name)), ast.Name(id="__name__"), _],
                keywords=[],
            ) if base in self._enums:
                self.has_any = True
                target = ast.Name(name, ast.Store())
                new = ast.Assign(targets=[target], value=ast.Name("int", ast.Load()))
                return ast.fix_missing_locations(ast.copy_location(new, node))
        return node
