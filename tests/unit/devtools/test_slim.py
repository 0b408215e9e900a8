"""Plain classes and patterns of the static file do what those of the source do."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import importlib
import inspect
import pickle
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devtools.static import plain
from devtools.static.slim import slim
from devtools.static.slim.trees import PLAIN
from tests.support import ROOT

#: Every module of rapid, and of what it shares with the server.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("lambda_protocol", "rapid")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PLAIN, plain)
    monkeypatch.setitem(sys.modules, "slimmed", ModuleType("slimmed"))  # dataclasses looks there


def run(source: str, name: str = "slimmed") -> ModuleType:
    """Return the module that the slimmed ``source`` makes."""
    module = ModuleType(name)
    exec(compile(slim("from __future__ import annotations\n" + source), name, "exec"), vars(module))
    return module


@functools.cache
def slimmed(name: str) -> tuple[ModuleType, ModuleType]:
    """Return a module, and what it is in the static file."""
    original = importlib.import_module(name)
    assert original.__file__ is not None
    module = ModuleType(name)
    module.__dict__.update(__file__=original.__file__, __package__=original.__package__)
    if is_package := hasattr(original, "__path__"):
        module.__path__ = original.__path__
    tree = slim(Path(original.__file__).read_text(), is_package=is_package)
    exec(compile(tree, name, "exec"), vars(module))
    return original, module


def classes() -> Iterator[Any]:
    """Yield each class of the product that is to be expanded."""
    for name in MODULES:
        module = importlib.import_module(name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == name:
                is_row = issubclass(value, tuple)
                if dataclasses.is_dataclass(value) or is_row or issubclass(value, StrEnum):
                    yield pytest.param(value, id=f"{name}.{value.__name__}")


def twin(original: type) -> Any:
    """Return the class that ``original`` is in the static file."""
    return getattr(slimmed(original.__module__)[1], original.__name__)


def of_kind(kind: type) -> list[Any]:
    return [case for case in classes() if issubclass(case.values[0], kind)]


def dataclass_cases() -> list[Any]:
    return [case for case in classes() if dataclasses.is_dataclass(case.values[0])]


def values(record: Any) -> dict[str, Any]:
    """Return a value for each field that ``__init__`` takes."""
    fields = [field for field in dataclasses.fields(record) if field.init]
    return {
        field.name: f"amqp://host{number}" if field.type == "str" else number + 0.5
        for number, field in enumerate(fields)
    }


# --- dataclasses


@pytest.mark.parametrize("original", dataclass_cases())
def test_a_dataclass_is_expanded_with_the_same_fields_and_parameters(original: Any) -> None:
    expanded = twin(original)

    assert issubclass(expanded, plain.Identity)
    assert told_of_fields(expanded) == told_of_fields(original)
    assert told_of_parameters(expanded) == told_of_parameters(original)
    assert expanded.__match_args__ == original.__match_args__
    assert expanded.__slots__ == original.__slots__
    assert {n for n in vars(original) if not n.startswith("_")} == {
        n for n in vars(expanded) if not n.startswith("_")
    }


def told_of_fields(record: Any) -> list[tuple[object, ...]]:
    return [
        (f.name, f.init, f.repr, f.compare, f.hash, f.kw_only, _same(f.default), f.default_factory)
        for f in dataclasses.fields(record)
    ]


def told_of_parameters(record: Any) -> list[tuple[object, ...]]:
    def is_optional(parameter: inspect.Parameter) -> bool:
        return parameter.default is not inspect.Parameter.empty

    parameters = inspect.signature(record.__init__).parameters.values()
    return [(p.name, p.kind, is_optional(p)) for p in parameters]


def _same(default: object) -> object:
    """Return what two classes' defaults are compared by: objects of expanded classes are others."""
    is_plain = isinstance(default, str | int | float | tuple | None)
    return default if is_plain else getattr(default, "__qualname__", repr(default))


@pytest.mark.parametrize("original", dataclass_cases())
def test_an_object_of_an_expanded_dataclass_acts_as_the_original(original: Any) -> None:
    expanded = twin(original)
    told = values(original)
    before, after = original(**told), expanded(**told)
    name = next(iter(told), None)

    for changed in ({}, *([{name: others_value(told[name])}] if name else [])):
        other = dataclasses.replace(before, **changed)
        twin_of_other = dataclasses.replace(after, **changed)
        assert repr(twin_of_other) == repr(other)
        assert (after == twin_of_other) == (before == other)
        assert (after != twin_of_other) == (before != other)
        assert plain.replace(after, **changed).__class__ is expanded
    assert after != before
    assert hash_of(after) == hash_of(before)
    assert can_change(after, name) == can_change(before, name)
    assert repr(copy.copy(after)) == repr(after)
    assert not hasattr(after, "__dict__")


def others_value(value: object) -> object:
    return f"{value}-other" if isinstance(value, str) else 99


def hash_of(record: Any) -> object:
    method: object = type(record).__hash__
    if method is object.__hash__:
        return "by identity"
    try:
        return hash(record)
    except TypeError:
        return "none"


def can_change(record: Any, name: str | None) -> bool:
    try:
        setattr(record, name or "missing", 5)
    except dataclasses.FrozenInstanceError:
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(record, name or "missing")
        return False
    except (AttributeError, TypeError):
        return name is not None
    return True


def test_what_a_dataclass_may_do_besides_fields_is_kept() -> None:
    made = run(
        """
from dataclasses import dataclass, field
def first(): return 1
@dataclass(slots=True)
class Made:
    '''With everything.'''
    a: int
    b: list[int] = field(default_factory=list)
    c: int = field(default_factory=first, compare=False)
    d: int = field(default=4, init=False)
    e: int = field(init=False)
    kind = "made"
    def __post_init__(self): self.e = self.a + 1
    def __repr__(self): return f"{self.kind} {super().__repr__()}"
"""
    ).Made

    one, other = made(1), made(1, c=7)

    assert issubclass(made, plain.Record)
    assert repr(one) == "made Made(a=1, b=[], c=1, d=4, e=2)"
    assert one == other
    assert one.b is not other.b
    with pytest.raises(TypeError, match="init=False"):
        plain.replace(one, d=5)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_a_frozen_record_can_be_pickled_and_a_record_may_contain_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = run(
        """
from dataclasses import dataclass
@dataclass(frozen=True, slots=True)
class Frozen:
    a: object
"""
    )
    monkeypatch.setitem(sys.modules, "slimmed", made)
    made.Frozen.__module__ = "slimmed"
    itself: list[object] = []
    loop = made.Frozen(itself)
    itself.append(loop)

    assert pickle.loads(pickle.dumps(made.Frozen(3))) == made.Frozen(3)
    assert repr(loop) == "Frozen(a=[...])"


@pytest.mark.parametrize(
    "source",
    [
        "@dataclass\nclass C:\n    a: int",
        "@dataclass(slots=True, order=True)\nclass C:\n    a: int",
        "@dataclass(slots=True)\nclass C(Exception):\n    a: int",
        "@dataclass(slots=True)\nclass C:\n    a: InitVar[int]",
        "@dataclass(slots=True)\nclass C:\n    a: ClassVar[int] = 1",
        "@dataclass(slots=True)\nclass C:\n    a: int = field(kw_only=True)",
        "@dataclass(slots=True)\nclass C:\n    a: int\n    def __hash__(self): return 1",
        "class C(StrEnum):\n    A = auto()",
        "class C(StrEnum):\n    A = 'a'\n    def __str__(self): return 'x'",
        "class C(Enum):\n    A = 'a'",
    ],
)
def test_a_class_that_uses_more_than_is_known_is_left_alone(source: str) -> None:
    head = (
        "from dataclasses import InitVar, dataclass, field\n"
        "from enum import Enum, StrEnum, auto\nfrom typing import ClassVar\n"
    )
    made = run(head + source).C

    assert not issubclass(made, plain.Identity | plain.Strings)
    assert dataclasses.is_dataclass(made) or issubclass(made, sys.modules["enum"].Enum)


# --- named tuples


@pytest.mark.parametrize("original", of_kind(tuple))
def test_a_named_tuple_is_expanded_and_acts_as_the_original(original: Any) -> None:
    expanded = twin(original)
    numbers = range(len(original._fields))
    before, after = original(*numbers), expanded(*numbers)

    assert issubclass(expanded, plain.Row)
    assert told_of_call(expanded) == told_of_call(original)
    assert expanded._fields == original._fields
    assert expanded._field_defaults == original._field_defaults
    assert expanded.__match_args__ == original.__match_args__
    assert after == before
    assert hash(after) == hash(before)
    assert [getattr(after, name) for name in expanded._fields] == list(numbers)
    assert plain.Row.__repr__(after) == tuple_text(before)
    assert after._asdict() == before._asdict()
    assert after._replace(**{expanded._fields[0]: 9}) == (9, *numbers[1:])
    assert expanded._make(numbers) == after
    assert copy.copy(after).__class__ is expanded
    with pytest.raises(TypeError, match="unexpected field"):
        after._replace(none=1)
    with pytest.raises(TypeError, match="Expected"):
        expanded._make([*numbers, 1])


def told_of_call(row: Any) -> list[tuple[object, ...]]:
    return [(p.name, p.default) for p in inspect.signature(row.__new__).parameters.values()]


def tuple_text(row: Any) -> str:
    """Return the text of a named tuple, whatever its class prints."""
    named: Any = type(row).__mro__[-3] if type(row).__mro__[-3] is not type(row) else type(row)
    shown = ", ".join(f"{name}={value!r}" for name, value in row._asdict().items())
    return f"{named.__name__}({shown})"


def test_a_named_tuple_that_a_call_makes_is_expanded() -> None:
    made = run(
        "from collections import namedtuple\n"
        "_First = namedtuple('First', 'a, b')\n_Second = namedtuple('Second', ['c'])\n"
    )

    assert repr(made._First(1, 2)) == "First(a=1, b=2)"
    assert made._Second(3).c == 3
    assert issubclass(made._First, plain.Row)


# --- enums


@pytest.mark.parametrize("original", of_kind(StrEnum))
def test_a_string_enum_is_expanded_and_acts_as_the_original(original: Any) -> None:
    expanded = twin(original)

    assert issubclass(expanded, plain.Strings)
    assert list(expanded) == list(original)
    assert len(expanded) == len(original)
    assert list(reversed(expanded)) == list(reversed(original))
    assert expanded.__members__ == original.__members__
    for before in original:
        after = expanded(before.value)
        assert after is expanded[before.name] is getattr(expanded, before.name)
        assert (after.name, after.value, hash(after)) == (before.name, before.value, hash(before))
        assert (repr(after), str(after), f"{after:>30}") == (
            repr(before),
            str(before),
            f"{before:>30}",
        )
        assert type(str(after)) is str
        assert after in expanded
        assert copy.deepcopy(after) is after
        with pytest.raises(AttributeError):
            setattr(expanded, before.name, "other")
        with pytest.raises(AttributeError):
            after.value = "other"
    with pytest.raises(ValueError, match=re.escape(message(original))):
        expanded("none such")


def message(enum: Any) -> str:
    with pytest.raises(ValueError, match="none such") as caught:
        enum("none such")
    return str(caught.value)


def test_a_second_name_of_a_value_is_an_alias() -> None:
    made = run("from enum import StrEnum\nclass E(StrEnum):\n    A = 'a'\n    B = 'a'\n").E

    assert made.B is made.A
    assert [member.name for member in made] == ["A"]
    assert list(made.__members__) == ["A", "B"]


# --- patterns, statuses, imports, docstrings


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_product_runs_in_its_slim_form_with_the_same_patterns(
    name: str,
) -> None:
    original, module = slimmed(name)

    before, after = patterns(original), patterns(module)
    assert after == before
    assert [p.groupindex for p in after.values()] == [p.groupindex for p in before.values()]


def patterns(module: ModuleType) -> dict[str, re.Pattern[Any]]:
    return {n: value for n, value in vars(module).items() if isinstance(value, re.Pattern)}


def test_a_pattern_of_constants_is_compiled_when_frozen() -> None:
    source = """
import re
FLAGS = re.IGNORECASE | re.VERBOSE
PART = "b+"
WHOLE = re.compile(rf"a (?P<named>{PART})  # comment", FLAGS)
def find(text): return re.search(PART, text)
"""

    made = run(source)

    assert "compile" not in {
        node.attr for node in ast.walk(slim(source)) if isinstance(node, ast.Attribute)
    }
    assert re.compile(r"a (?P<named>b+)  # comment", re.I | re.X) == made.WHOLE
    assert made.WHOLE.fullmatch("ABB")["named"] == "BB"
    assert isinstance(made.re, plain.Late)
    assert made.find("abb")[0] == "bb"
    assert vars(made)["re"] is re


def test_a_module_is_late_only_where_functions_alone_use_it() -> None:
    made = run(
        """
import glob, shutil
import urllib.parse
from traceback import format_exc as formatted
from textwrap import dedent, indent
EARLY = shutil.which
INDENT = indent
def escape(text): return glob.escape(text)
def quote(text): return urllib.parse.quote(text)
def text(): return formatted(), dedent("  a")
def shadow(glob): return glob
"""
    )

    assert made.escape is not None
    assert isinstance(made.urllib, plain.Late)
    assert made.shutil is sys.modules["shutil"]
    assert not isinstance(made.glob, plain.Late)  # a parameter has the same name
    assert made.quote(" ") == "%20"
    assert made.text() == ("NoneType: None\n", "a")
    assert vars(made)["urllib"] is sys.modules["urllib"]


def test_what_only_annotations_need_is_dropped() -> None:
    made = run(
        """
import queue
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar, cast
if TYPE_CHECKING:
    import missing_module
T = TypeVar("T")
LIMIT: Final = 3
later: int
class Port(Protocol[T]):
    x: int
class Box(Generic[T]):
    def get(self: Box, q: queue.Queue) -> missing_module.Type: return cast("int", LIMIT)
"""
    )

    assert made.Box[int]().get(None) == 3
    assert vars(made).keys().isdisjoint({"queue", "T", "TYPE_CHECKING", "Protocol", "later"})
    assert made.Box.get.__annotations__ == {}
    assert made.Port.__mro__ == (made.Port, object)


def test_what_a_module_exports_is_kept() -> None:
    made = run("import queue, heapq\nimport bisect as bisect\n__all__ = ['queue']\n")

    assert vars(made).keys() >= {"queue", "bisect"}
    assert not hasattr(made, "heapq")


def test_statuses_are_numbers() -> None:
    made = run(
        "from http import HTTPStatus\n"
        "REASONS = {status.value: status.phrase for status in HTTPStatus}\n"
        "def status(): return HTTPStatus.NO_CONTENT\n"
    )

    assert made.REASONS[404] == "Not Found"
    assert type(made.status()) is int
    assert made.status() == 204
    assert not hasattr(made, "HTTPStatus")


def test_docstrings_are_dropped_unless_the_module_reads_them() -> None:
    source = (
        '"""Of the module."""\ndef f():\n    """Of a function."""\nclass C:\n    """Of it."""\n'
    )

    assert (run(source).f.__doc__, run(source).C.__doc__) == (None, None)
    assert run(source + "DOC = __doc__").C.__doc__ == "Of it."
