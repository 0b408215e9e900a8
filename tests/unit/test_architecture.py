"""What the packages promise each other, read from their source and checked by importing them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("lambda_protocol", "lambda_server", "rapid")
PROGRAMS = ("lambda_server", "rapid")

#: What each package may import besides the standard library, itself and lambda_protocol.
MAY_IMPORT = {
    "lambda_protocol": set[str](),
    "rapid": {"pika", "prometheus_client"},
    "lambda_server": {"click", "flask", "gunicorn", "pika", "prometheus_client",
                      "prometheus_flask_exporter", "werkzeug"},
}  # fmt: skip
#: The modules of lambda_protocol with a dependency: it is pika.
PROTOCOL_EXCEPTIONS = {"amqp_connection", "memory_broker", "memory_queues"}
#: The broker in memory, which ships for tests: no program needs it.
FOR_TESTS = {"lambda_protocol.memory_broker", "lambda_protocol.memory_queues"}
#: The rooms of rapid, from the ground up: one imports only rooms of the floors below it.
ROOMS = (
    {"response_sink", "streamed_answer"},
    {"call", "connection_limits", "deadline", "exchange", "metrics", "processes", "rest_sender",
     "self_copy", "telemetry"},
    {"http_service", "invocations", "logs"},
    {"settings"},
    {"environment"},
    {"apis", "scheduling"},
    {"broker"},
    {"daemon"},
    {"__main__"},
)  # fmt: skip
#: Modules whose import has an effect: that is what they are for.
EFFECTIVE = {"lambda_server.wsgi"}
#: What importing a program's parts must not load: each costs memory and start-up time.
LATE = ("pika", "prometheus_client", "flask")


def modules(package: str) -> dict[str, Path]:
    """Return every module of a package by its dotted name."""
    return {
        ".".join((package, *path.relative_to(ROOT / package).with_suffix("").parts)): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }


ALL_MODULES = {name: path for package in PACKAGES for name, path in modules(package).items()}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names of every import, wherever it stands, for types only or not."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_packages(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)}


def test_every_package_is_there() -> None:
    assert all(len(modules(package)) > 3 for package in PACKAGES)


# --- directions


@pytest.mark.parametrize("module", ALL_MODULES)
def test_a_module_imports_only_what_its_package_may(module: str) -> None:
    package, _, name = module.partition(".")
    allowed = MAY_IMPORT[package] | {package, "lambda_protocol"} | sys.stdlib_module_names
    allowed |= {"_typeshed"}  # only type checkers have it
    if package == "lambda_protocol" and name in PROTOCOL_EXCEPTIONS:
        allowed |= {"pika"}

    assert imported_packages(tree_of(ALL_MODULES[module])) <= allowed


@pytest.mark.parametrize("module", sorted(FOR_TESTS))
def test_the_broker_in_memory_is_needed_by_no_program(module: str) -> None:
    assert all(module not in needed_shared_modules(program) for program in PROGRAMS)


@pytest.mark.parametrize(
    "module",
    [n for n in modules("lambda_protocol") if not n.endswith("__init__") and n not in FOR_TESTS],
)
def test_a_shared_module_is_needed_by_both_programs(module: str) -> None:
    """Itself, or through another shared module that is."""
    for program in PROGRAMS:
        needed = needed_shared_modules(program)
        assert module in needed, f"{program} does not import it"


def needed_shared_modules(program: str) -> set[str]:
    shared = modules("lambda_protocol")
    trees = [tree_of(path) for path in modules(program).values()]
    needed: set[str] = set()
    while trees:
        for name in imported(trees.pop()) & shared.keys() - needed:
            needed.add(name)
            trees.append(tree_of(shared[name]))
    return needed


def test_a_program_is_not_wired_in_circles() -> None:
    """Imports under TYPE_CHECKING do not count: they are not made."""
    for package in PACKAGES:
        own = modules(package)
        edges = {
            name: imported_at_run_time(tree_of(path)) & own.keys() for name, path in own.items()
        }
        while edges:
            leaves = {name for name, targets in edges.items() if not targets & edges.keys()}
            assert leaves, f"a circle among {sorted(edges)}"
            edges = {name: targets for name, targets in edges.items() if name not in leaves}


@pytest.mark.parametrize("module", [name for name in modules("rapid") if name.count(".") > 0])
def test_a_room_of_rapid_imports_only_what_lies_below_it(module: str) -> None:
    """Imports for types, and those inside functions, count as well."""
    floors = {room: number for number, floor in enumerate(ROOMS) for room in floor}
    room = module.split(".")[1]
    if room == "__init__":
        return
    targets = {
        name.split(".")[1]
        for name in imported(tree_of(ALL_MODULES[module]))
        if name in ALL_MODULES and name.startswith("rapid.")
    }

    assert {target for target in targets - {room} if floors[target] >= floors[room]} == set()


def imported_at_run_time(tree: ast.Module) -> set[str]:
    """Return what is imported when the module is: neither in functions nor for types only."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= imported(node)
    return found


# --- size

#: The most lines of a class and of a function, docstrings and decorators included.
CLASS_LINES = 300
FUNCTION_LINES = 50


@pytest.mark.parametrize("module", ALL_MODULES)
def test_a_class_and_a_function_can_be_read_at_one_sitting(module: str) -> None:
    """A longer one has two subjects. Cut it where they meet, not into a class and its helpers."""
    long = {
        node.name: lines
        for node in ast.walk(tree_of(ALL_MODULES[module]))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := lines_of(node))
        > (CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES)
    }

    assert long == {}


def lines_of(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return (node.end_lineno or first) - first + 1


# --- imports without effect


def isolated(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "rapid.daemon",
        "rapid.__main__",
        "lambda_protocol.environ",
        "lambda_server.gunicorn_conf",  # these two are what gunicorn's arbiter needs
        "lambda_server.worker",
    ],
)
def test_dependencies_are_imported_late(module: str) -> None:
    loaded = isolated(f"import sys, {module}; print([m for m in {LATE!r} if m in sys.modules])")

    assert loaded == "[]\n"


def test_importing_a_module_has_no_effect() -> None:
    """No thread, no environment variable, no signal, no handler, no socket, no output."""
    names = [name for name in ALL_MODULES if name not in EFFECTIVE and "__main__" not in name]
    code = f"""
import importlib, logging, os, signal, threading
# Dependencies may do as they like; they go first.
for dependency in ("pika", "prometheus_client", "flask", "click", "gunicorn.workers.gthread",
                   "prometheus_flask_exporter"):
    importlib.import_module(dependency)
def state():
    descriptors = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{{fd}}")]
    return (threading.active_count(), dict(os.environ), os.getcwd(),
            [signal.getsignal(number) for number in sorted(signal.valid_signals())],
            logging.getLogger().handlers[:], logging.getLogger().level,
            sorted(d for d in descriptors if d.startswith(("socket:", "pipe:"))))
for name in {names!r}:
    before = state()
    importlib.import_module(name)
    assert state() == before, name
"""
    assert isolated(code) == ""


# --- words


def public_definitions(tree: ast.Module) -> list[ast.ClassDef | ast.FunctionDef]:
    """Return public classes and functions, and public methods of public classes."""
    found: list[ast.ClassDef | ast.FunctionDef] = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        found.append(node)
        if isinstance(node, ast.ClassDef):
            found += [
                member
                for member in node.body
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_")
            ]
    return found


@pytest.mark.parametrize("module", ALL_MODULES)
def test_what_is_public_says_what_it_is(module: str) -> None:
    tree = tree_of(ALL_MODULES[module])
    silent = [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]

    assert ast.get_docstring(tree), "the module has no docstring"
    assert silent == []


@pytest.mark.parametrize("module", ALL_MODULES)
def test_a_module_asks_for_its_annotations_late(module: str) -> None:
    tree = tree_of(ALL_MODULES[module])
    if len(tree.body) > 1:
        assert "__future__.annotations" in imported(tree)


@pytest.mark.parametrize("module", ALL_MODULES)
def test_a_thread_is_named_and_does_not_keep_the_program_alive(module: str) -> None:
    for node in ast.walk(tree_of(ALL_MODULES[module])):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread":
            given = {keyword.arg for keyword in node.keywords}
            assert {"name", "daemon"} <= given, f"line {node.lineno}"
