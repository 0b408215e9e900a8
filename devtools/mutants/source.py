"""The mutants of one module: each changes one expression or statement."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_COMPARISONS: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
}
_ARITHMETIC: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.Add(),
    ast.Div: ast.Mult(),
    ast.FloorDiv: ast.Mult(),
    ast.BitOr: ast.BitAnd(),
    ast.BitAnd: ast.BitOr(),
}
#: What only words a message, or speaks to a type checker: no test has to notice a change there.
_WORDING = ("logger.", "cast(", "warnings.", "assert_never(")
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True, order=True)
class Mutant:
    """A change of one place, named by words and not by line: it is the same in moved code."""

    module: str  #: dotted
    function: str  #: with its classes
    change: str  #: statement, what was there, what stands there now; a number from the second on
    line: int = field(compare=False)  #: of the change
    statement: int = field(compare=False)  #: line at which the statement begins
    span: tuple[int, int] = field(compare=False)  #: the bytes of the source that go
    text: bytes = field(compare=False)  #: what comes instead

    @property
    def name(self) -> str:
        """The mutant in one line of text."""
        return f"{self.module}\t{self.function}\t{self.change}"

    def apply(self, source: bytes) -> bytes:
        """Return the module's source with the change."""
        start, end = self.span
        return source[:start] + self.text + source[end:]


def mutants_of(module: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a module, in the order of the source."""
    finder = _Finder(module, source)
    finder.visit(ast.parse(source))
    return finder.found


class _Finder(ast.NodeVisitor):
    """Walks a module; only what is within functions is changed."""

    def __init__(self, module: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._module = module
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._path: list[str] = []
        self._depth = 0  # of functions
        self._statement: ast.stmt | None = None
        self._names: Counter[tuple[str, str]] = Counter()

    def visit(self, node: ast.AST) -> None:
        """Look at a node and, unless it is wording, at what is in it."""
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                self._enter(node)
            case ast.stmt():
                self._visit_statement(node)
            case ast.JoinedStr():
                pass  # Python 3.11 tells wrong places there
            case ast.Call() if ast.unparse(node).startswith(_WORDING):
                pass
            case ast.expr() if self._depth:
                for text in _expressions(node):
                    self._add(node, text)
                self.generic_visit(node)
            case _:
                self.generic_visit(node)

    def _enter(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        is_function = not isinstance(node, ast.ClassDef)
        self._path.append(node.name)
        self._depth += is_function
        for statement in node.body:
            self.visit(statement)
        self._depth -= is_function
        self._path.pop()

    def _visit_statement(self, node: ast.stmt) -> None:
        outer, self._statement = self._statement, node
        if self._depth:
            for text in _statements(node):
                self._add(node, text)
        match node:
            case ast.Raise() | ast.Assert():
                pass
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring
            case ast.AnnAssign(value=value):
                if value is not None:
                    self.visit(value)
            case _:
                self.generic_visit(node)
        self._statement = outer

    def _add(self, node: ast.stmt | ast.expr, text: str) -> None:
        assert self._statement is not None
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        statement = ast.unparse(self._statement).splitlines()[0]
        if isinstance(node, ast.stmt):
            change = f"{_shown(statement)} -> {text}"
        else:
            change = f"{_shown(statement)} : {_shown(ast.unparse(node))} -> {_shown(text)}"
        function = ".".join(self._path)
        self._names[function, change] += 1
        count = self._names[function, change]
        self.found.append(
            Mutant(
                module=self._module,
                function=function,
                change=change if count == 1 else f"{change} ({count})",
                line=node.lineno,
                statement=self._statement.lineno,
                span=(
                    self._starts[node.lineno - 1] + node.col_offset,
                    self._starts[node.end_lineno - 1] + node.end_col_offset,
                ),
                text=text.encode() if isinstance(node, ast.stmt) else f"({text})".encode(),
            )
        )


def _statements(node: ast.stmt) -> Iterator[str]:
    """Yield what can stand for a whole statement."""
    match node:
        case ast.Return(value=ast.expr() as value):
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield "return None"
        case ast.Expr(value=ast.Call() as call) if not ast.unparse(call).startswith(_WORDING):
            yield "pass"
        case ast.AugAssign() | ast.Delete():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"


def _expressions(node: ast.expr) -> Iterator[str]:
    """Yield what can stand for an expression."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            yield ast.unparse(ast.Compare(left, [_COMPARISONS[type(op)]], comparators))
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(other, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            yield ast.unparse(ast.BinOp(left, _ARITHMETIC[type(op)], right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.unparse(ast.IfExp(test, orelse, body))
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield repr(value + 1)
        case ast.Constant(value=str(value)) if value:
            yield repr(value + "X")
        case ast.Constant(value=bytes(value)) if value:
            yield repr(value + b"X")


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."
