"""Dataclasses, named tuples and string enums become plain classes, which are quick to make.

A class that uses more than is known here is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from devtools.static.slim.trees import add_import, imported, plain, statements

_CLASS_OPTIONS: Final = {"frozen", "slots", "kw_only", "eq"}
_ROW_NAMES: Final = {"Row", "column", "new_row"}
_FIELD_OPTIONS: Final = {"default", "default_factory", "init", "repr", "compare"}
#: What a class may not define itself, as ``dataclass`` would look at it.
_GENERATED: Final = {
    "__init__", "__new__", "__eq__", "__hash__", "__lt__", "__setattr__", "__delattr__",
    "__getstate__", "__setstate__", "__replace__", "__slots__", "__match_args__",
    "__init_subclass__",
}  # fmt: skip


def with_plain_classes(module: ast.Module) -> None:
    """Expand what can be expanded, and have ``replace`` of ``dataclasses`` from our bases."""
    expansion = _Expansion(
        dataclasses=imported(module, "dataclasses"),
        typing=imported(module, "typing"),
        enum=imported(module, "enum"),
    )
    expansion.visit(module)
    add_import(module, expansion.used)
    _replace_replace(module)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    default: ast.expr | None = None
    options: Mapping[str, ast.expr] = field(default_factory=dict)

    @property
    def factory(self) -> ast.expr | None:
        """What makes its default."""
        return self.options.get("default_factory")

    @property
    def is_parameter(self) -> bool:
        """Whether ``__init__`` takes it."""
        init = self.options.get("init")
        return init is None or ast.literal_eval(init)

    def parameter(self) -> str:
        """Return it as ``__init__`` has it."""
        if self.factory is not None:
            return f"{self.name}={plain('ABSENT')}"
        return self.name if self.default is None else f"{self.name}={ast.unparse(self.default)}"

    def value(self) -> str | None:
        """Return what ``__init__`` sets it to; None: nothing."""
        if self.factory is not None:
            made = f"({ast.unparse(self.factory)})()"
            if not self.is_parameter:
                return made
            return f"{made} if {self.name} is {plain('ABSENT')} else {self.name}"
        if self.is_parameter:
            return self.name
        return None if self.default is None else ast.unparse(self.default)


class _Expansion(ast.NodeTransformer):
    def __init__(
        self, *, dataclasses: dict[str, str], typing: dict[str, str], enum: dict[str, str]
    ) -> None:
        self.used: set[str] = set()
        self._dataclasses = dataclasses
        self._typing = typing
        self._enum = enum

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Expand one class."""
        self.generic_visit(node)
        defined = {
            statement.name for statement in node.body if isinstance(statement, ast.FunctionDef)
        } | {
            target.id
            for statement in node.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        if defined & _GENERATED or node.keywords:
            return node
        base = node.bases[0] if len(node.bases) == 1 else None
        if isinstance(base, ast.Name) and not node.decorator_list:
            if self._typing.get(base.id) == "NamedTuple":
                return self._row(node)
            if self._enum.get(base.id) == "StrEnum":
                return self._strings(node)
        if not node.bases and len(node.decorator_list) == 1:
            options = self._options(node.decorator_list[0])
            fields = self._fields(node)
            if options is not None and options.get("slots") and fields is not None:
                return self._record(node, options, fields)
        return node

    # --- dataclasses

    def _options(self, decorator: ast.expr) -> dict[str, bool] | None:
        if not (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Name)
            and self._dataclasses.get(decorator.func.id) == "dataclass"
            and not decorator.args
        ):
            return None
        options = {}
        for keyword in decorator.keywords:
            if keyword.arg not in _CLASS_OPTIONS or not isinstance(keyword.value, ast.Constant):
                return None
            options[keyword.arg] = bool(keyword.value.value)
        return options

    def _fields(self, node: ast.ClassDef) -> list[_Field] | None:
        fields = []
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign):
                continue
            words = {n.id for n in ast.walk(statement.annotation) if isinstance(n, ast.Name)}
            if words & {"ClassVar", "InitVar", "KW_ONLY"} or not isinstance(
                statement.target, ast.Name
            ):
                return None
            found = self._field(statement.target.id, statement.value)
            if found is None:
                return None
            fields.append(found)
        return fields

    def _field(self, name: str, value: ast.expr | None) -> _Field | None:
        if not (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and self._dataclasses.get(value.func.id) == "field"
        ):
            return _Field(name, value)
        options = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
        if value.args or len(options) < len(value.keywords) or set(options) - _FIELD_OPTIONS:
            return None
        for option in ("init", "repr", "compare"):
            if not isinstance(options.get(option, ast.Constant(True)), ast.Constant):
                return None
        return _Field(name, options.pop("default", None), options)

    def _record(
        self, node: ast.ClassDef, options: dict[str, bool], fields: list[_Field]
    ) -> ast.AST:
        is_frozen = options.get("frozen", False)
        has_equality = options.get("eq", True)
        if is_frozen and not has_equality:
            return node
        base = "FrozenRecord" if is_frozen else "Record" if has_equality else "Identity"
        self.used |= {base, "ABSENT"} | ({"set_field"} if is_frozen else set())
        names = tuple(found.name for found in fields)
        parameters = [found for found in fields if found.is_parameter]
        is_keyword = options.get("kw_only", False)
        told = ["self", *(["*"] if is_keyword and parameters else [])]
        told += [found.parameter() for found in parameters]
        lines = [f"def __init__({', '.join(told)}):", "    pass"]
        for found in fields:
            value = found.value()
            if value is not None and is_frozen:
                lines.append(f"    {plain('set_field')}(self, {found.name!r}, {value})")
            elif value is not None:
                lines.append(f"    self.{found.name} = {value}")
        if any(isinstance(s, ast.FunctionDef) and s.name == "__post_init__" for s in node.body):
            lines.append("    self.__post_init__()")
        matched = () if is_keyword else tuple(found.name for found in parameters)
        unlike = {
            found.name: {key: ast.unparse(value) for key, value in found.options.items()}
            for found in fields
            if found.options
        }
        head = [f"__slots__ = __names__ = {names!r}", f"__match_args__ = {matched!r}"]
        if unlike:
            pairs = [
                f"{name!r}: {{{', '.join(f'{key!r}: {text}' for key, text in texts.items())}}}"
                for name, texts in unlike.items()
            ]
            head.append(f"__options__ = {{{', '.join(pairs)}}}")
        node.decorator_list = []
        return self._rebuilt(node, base, head, lines)

    # --- named tuples

    def _row(self, node: ast.ClassDef) -> ast.AST:
        fields = self._fields(node)
        if fields is None:
            return node
        self.used |= _ROW_NAMES
        return self._rebuilt(node, "Row", _row_head(fields), _row_tail(fields))

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.stmt]:
        """Expand ``NAME = namedtuple("NAME", "a b")``."""
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(
                    func=ast.Name(id="namedtuple") | ast.Attribute(attr="namedtuple"),
                    args=[ast.Constant(value=str(shown)), ast.Constant() | ast.List() as told],
                    keywords=[],
                ),
            ) if all(isinstance(word, ast.Constant) for word in getattr(told, "elts", ())):
                words = ast.literal_eval(told)
            case _:
                return node
        self.used |= _ROW_NAMES
        names = words.replace(",", " ").split() if isinstance(words, str) else words
        fields = [_Field(field_name) for field_name in names]
        body = "\n    ".join([*_row_head(fields), *_row_tail(fields)])
        return statements(
            f"class {name}({plain('Row')}):\n    {body}\n"
            f"{name}.__name__ = {name}.__qualname__ = {shown!r}",
            node,
        )

    # --- enums

    def _strings(self, node: ast.ClassDef) -> ast.AST:
        values = {}
        rest: list[ast.stmt] = []
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                target, value = statement.targets[0], statement.value
                if not (
                    isinstance(target, ast.Name)
                    and len(statement.targets) == 1
                    and not target.id.startswith("_")
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    return node
                values[target.id] = value.value
            elif isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
                rest.append(statement)
            elif not isinstance(statement, ast.Pass):
                return node
        self.used.add("Strings")
        node.body = rest
        return self._rebuilt(node, "Strings", [f"__values__ = {values!r}"], [])

    def _rebuilt(
        self, node: ast.ClassDef, base: str, head: list[str], tail: list[str]
    ) -> ast.ClassDef:
        rest = [s for s in node.body if not isinstance(s, ast.AnnAssign | ast.Pass)]
        node.body = [
            *statements("\n".join(head), node),
            *rest,
            *statements("\n".join(tail), node),
        ]
        node.bases = [ast.copy_location(ast.Name(plain(base), ast.Load()), node)]
        return node


def _row_head(fields: list[_Field]) -> list[str]:
    names = tuple(found.name for found in fields)
    defaults = ", ".join(
        f"{found.name!r}: {ast.unparse(found.default)}" for found in fields if found.default
    )
    return [
        "__slots__ = ()",
        f"_fields = __match_args__ = {names!r}",
        f"_field_defaults = {{{defaults}}}",
    ]


def _row_tail(fields: list[_Field]) -> list[str]:
    columns = "".join(f"{found.name}, " for found in fields)
    parameters = ", ".join(["_cls", *(found.parameter() for found in fields)])
    return [
        f"def __new__({parameters}):",
        f"    return {plain('new_row')}(_cls, ({columns}))",
        *(f"{found.name} = {plain('column')}({i}, None)" for i, found in enumerate(fields)),
    ]


def _replace_replace(module: ast.Module) -> None:
    """Take ``replace`` from ``_plain``, where the module needs nothing else of dataclasses."""
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "dataclasses":
            ours = [alias for alias in statement.names if alias.name == "replace"]
            if ours:
                statement.names = [a for a in statement.names if a.name != "replace"]
                new = ast.ImportFrom(module="_plain", names=ours, level=0)
                module.body.insert(module.body.index(statement), ast.copy_location(new, statement))
                if not statement.names:
                    module.body.remove(statement)
                return
