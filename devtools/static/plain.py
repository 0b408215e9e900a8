"""The bases of plain classes in the static file, where this module has the name ``_plain``.

Freezing writes dataclasses, named tuples and string enums as plain classes over these bases. So the
static file starts without ``dataclasses`` and ``enum``. ``dataclasses.fields()``, ``replace()`` and
the like work with the plain classes too.
"""

from __future__ import annotations

import _collections  # type: ignore[import-not-found]  # the next two are in C
import _sre  # type: ignore[import-not-found]
import sys
from _thread import get_ident
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, Final, Self, TypeVar

R = TypeVar("R", bound="Identity")

#: Makes the attribute of a row that is its column of a number.
column: Final = _collections._tuplegetter
#: Makes a pattern of its code.
pattern: Final = _sre.compile
#: Sets a field of a frozen record, as its ``__init__`` must.
set_field: Final = object.__setattr__
#: Makes a row of a tuple of its columns.
new_row: Final = tuple.__new__
#: The default of a parameter whose field has a factory.
ABSENT: Final = object()
#: The records whose ``repr`` is being made, and by which thread.
_represented: Final[set[tuple[int, int]]] = set()


class Late:
    """Stands for a module, as a variable of another module, until an attribute of it is read."""

    def __init__(
        self, variable: str, name: str, variables: dict[str, object], package: str | None = None
    ) -> None:
        """``variable`` becomes the module ``name``, or after its import ``package``, its parent."""
        self._import = variable, name, variables, package

    def __getattr__(self, attribute: str) -> object:
        variable, name, variables, package = self._import
        __import__(name)
        module: ModuleType = sys.modules[package or name]
        variables[variable] = module
        return getattr(module, attribute)


class Generic:
    """The base of a class with type parameters, which mean nothing when it runs."""

    __slots__ = ()

    def __class_getitem__(cls, _parameters: object) -> type[Self]:
        return cls


class _Fields:
    """Gives ``dataclasses`` the fields of a record as its own objects, when it asks for them."""

    def __get__(self, _instance: object, record: type[Identity]) -> dict[str, Any]:
        import dataclasses

        constructor: Any = record.__init__
        code = constructor.__code__
        positional = code.co_varnames[: code.co_argcount]
        values = constructor.__defaults__ or ()
        defaults = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
        defaults |= constructor.__kwdefaults__ or {}
        found = {}
        for name in record.__names__:
            options: dict[str, Any] = dict(record.__options__.get(name, {}))
            if name in defaults and "default_factory" not in options:
                options["default"] = defaults[name]
            field: Any = dataclasses.field(**options)
            field.name = name
            field.kw_only = name not in positional and code.co_kwonlyargcount > 0
            field._field_type = getattr(dataclasses, "_FIELD")  # noqa: B009 - as that module has it
            found[name] = field
        return found


class Identity:
    """The base of a dataclass whose objects are equal to themselves alone."""

    __slots__ = ()
    __names__: ClassVar[tuple[str, ...]] = ()
    __options__: ClassVar[Mapping[str, Mapping[str, object]]] = {}  #: other than a field's usual
    __dataclass_fields__ = _Fields()

    def __repr__(self) -> str:
        key = id(self), get_ident()
        if key in _represented:
            return "..."
        _represented.add(key)
        try:
            shown = [f"{name}={getattr(self, name)!r}" for name in self.__names__]
        finally:
            _represented.discard(key)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __replace__(self, /, **changes: object) -> Self:
        options = self.__options__
        for name in self.__names__:
            if options.get(name, {}).get("init", True):
                if name not in changes:
                    changes[name] = getattr(self, name)
            elif name in changes:
                raise TypeError(f"field {name} is declared with init=False")
        return type(self)(**changes)


class Record(Identity):
    """The base of a dataclass."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as of every class with __eq__ alone

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other.__class__ is not self.__class__:
            return NotImplemented
        names = _compared(type(self))
        return all([getattr(self, name) == getattr(other, name) for name in names])


class FrozenRecord(Record):
    """The base of a frozen dataclass."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # which is None
        return hash(tuple([getattr(self, name) for name in _compared(type(self))]))

    def __setattr__(self, name: str, value: object) -> None:
        if _is_frozen(type(self), name):
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if _is_frozen(type(self), name):
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    def __getstate__(self) -> list[object]:
        return [getattr(self, name) for name in self.__names__]

    def __setstate__(self, state: list[object]) -> None:
        for name, value in zip(self.__names__, state, strict=True):
            set_field(self, name, value)


def _compared(record: type[Identity]) -> list[str]:
    options = record.__options__
    return [name for name in record.__names__ if options.get(name, {}).get("compare", True)]


def _is_frozen(record: type[Identity], name: str) -> bool:
    """Return whether ``record`` is the dataclass itself, or has the field from it."""
    return "__names__" in record.__dict__ or name in record.__names__


def replace(record: R, /, **changes: object) -> R:
    """Return a copy of ``record`` with other values."""
    return record.__replace__(**changes)


class Row(tuple):  # type: ignore[type-arg]  # tuple[Any, ...] would import typing
    """The base of a named tuple."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _make(cls, values: Iterable[object]) -> Self:
        row: Self = new_row(cls, values)
        if len(row) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(row)}")
        return row

    def _replace(self, /, **changes: object) -> Self:
        row = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise TypeError(f"Got unexpected field names: {list(changes)!r}")
        return row

    def __replace__(self, /, **changes: object) -> Self:
        return self._replace(**changes)

    def _asdict(self) -> dict[str, object]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getnewargs__(self) -> tuple[object, ...]:
        return tuple(self)


class _StringsType(type):
    """The class of string enums."""

    _members: dict[str, Strings]
    _by_value: dict[str, Strings]

    def __call__(cls, value: str) -> Strings:
        try:
            return cls._by_value[value]
        except (KeyError, TypeError):
            raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

    def __iter__(cls) -> Iterator[Strings]:
        return (member for name, member in cls._members.items() if member._name_ == name)

    def __reversed__(cls) -> Iterator[Strings]:
        return reversed(list(cls))

    def __len__(cls) -> int:
        return len(cls._by_value)

    def __bool__(cls) -> bool:
        return True

    def __contains__(cls, value: str) -> bool:
        return value in cls._by_value

    def __getitem__(cls, name: str) -> Strings:
        return cls._members[name]

    def __setattr__(cls, name: str, value: object) -> None:
        if name in cls._members:
            raise AttributeError(f"cannot reassign member {name!r}")
        type.__setattr__(cls, name, value)

    def __delattr__(cls, name: str) -> None:
        if name in cls._members:
            raise AttributeError(f"{cls.__name__!r} cannot delete member {name!r}.")
        type.__delattr__(cls, name)

    def __repr__(cls) -> str:
        return f"<enum {cls.__name__!r}>"

    @property
    def __members__(cls) -> Mapping[str, Strings]:
        from types import MappingProxyType

        return MappingProxyType(cls._members)


class Strings(str, metaclass=_StringsType):
    """The base of a string enum."""

    _members: ClassVar[dict[str, Strings]] = {}
    _by_value: ClassVar[dict[str, Strings]] = {}
    __values__: ClassVar[Mapping[str, str]] = {}
    _name_: str
    _value_: str

    def __init_subclass__(cls) -> None:
        """Make the members of ``__values__``; the second name of a value is an alias."""
        members: dict[str, Strings] = {}
        by_value: dict[str, Strings] = {}
        for name, value in cls.__values__.items():
            member = by_value.get(value)
            if member is None:
                member = by_value[value] = str.__new__(cls, value)
                member.__dict__.update(_name_=name, _value_=value)
            members[name] = member
            setattr(cls, name, member)
        cls._members, cls._by_value = members, by_value

    @property
    def name(self) -> str:
        """The name of the member."""
        return self._name_

    @property
    def value(self) -> str:
        """The string that the member is."""
        return self._value_

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name_}: {self._value_!r}>"

    def __str__(self) -> str:
        return self._value_

    def __format__(self, specification: str) -> str:
        return format(self._value_, specification)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce_ex__(self, _protocol: object) -> tuple[object, ...]:
        return type(self), (self._value_,)
