"""What the documents say is what the code does: settings, errors, metrics, flags, paths, shell."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lambda_protocol import limits
from lambda_protocol.address import EVERY_HOST
from lambda_protocol.amqp_connection import connection_parameters
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import ErrorType, LambdaApiError, ServiceException
from lambda_server.cli import main as lambda_server
from lambda_server.functions_file import read_functions
from rapid.settings.command_line import USAGE
from rapid.settings.names import ALIASES, FORMER, INIT_CONTAINER, PREFIX
from tests.documents import (
    DOCUMENTS,
    Block,
    anchors,
    blocks,
    code_words,
    make_targets,
    table_rows,
)
from tests.support import ECHO, ROOT, Rapid, Server, WebProgram, unique_name

REFERENCE = ROOT / "docs" / "reference"
SETTINGS = (REFERENCE / "settings.md").read_text()
ERRORS = (REFERENCE / "errors.md").read_text()
METRICS = (REFERENCE / "metrics.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
PACKAGES = ("lambda_protocol", "lambda_server", "rapid")

#: Methods that read a variable by its name: a mapping's, and those of ``Environ``.
READERS = {
    "get",
    "getenv",
    "text",
    "flag",
    "host",
    "parsed",
    "integer",
    "seconds",
    "durations",
    "choice",
}


# --- settings


def variables_read(path: Path) -> Iterator[tuple[str, object]]:
    """Yield every environment variable that a module reads, with the default if it shows one."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }

    def name_of(node: ast.expr) -> str | None:
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(node, ast.Name):
            value = constants.get(node.id)
        is_variable = isinstance(value, str) and re.fullmatch(r"_?[A-Z][A-Z0-9_]+", value)
        return str(value) if is_variable else None

    for node in ast.walk(tree):
        name, default = None, None
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if "envvar" in keywords:
                name = name_of(keywords["envvar"])
            elif isinstance(node.func, ast.Attribute) and node.func.attr in READERS and node.args:
                name = name_of(node.args[0])
            default = keywords.get("default") or (node.args[1] if len(node.args) > 1 else None)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            name = name_of(node.slice) if isinstance(node.ctx, ast.Load) else None
        if name is not None:
            yield name, None if default is None else evaluated(default)


def evaluated(default: ast.expr) -> object:
    """Return the value of a default made of literals and limits; None for anything else."""
    names = {**vars(builtins), **vars(limits), "EVERY_HOST": EVERY_HOST}
    if any(isinstance(node, ast.Name) and node.id not in names for node in ast.walk(default)):
        return None
    return eval(compile(ast.Expression(default), "default", "eval"), names)


def is_about_the_process(path: Path) -> bool:
    """Return whether a module sees environment variables; WSGI calls something else environ."""
    text = path.read_text()
    signs = r"^import os$|\bEnviron\b|^import click$|^from rapid\.settings\.names import"
    return re.search(signs, text, re.MULTILINE) is not None


def settings_in_code() -> dict[str, dict[str, set[object]]]:
    """Return, by variable, the programs that read it and the defaults they give it."""
    found: dict[str, dict[str, set[object]]] = {}
    for package in PACKAGES:
        for path in filter(is_about_the_process, sorted((ROOT / package).rglob("*.py"))):
            for name, default in variables_read(path):
                programs = {"lambda_server": ["server"], "rapid": ["rapid"]}
                # rapid reads what lambda_protocol names by names of its own.
                for program in programs.get(package, ["server"]):
                    is_invoke = path.name == "cli.py" and program == "server"
                    key = "invoke" if is_invoke else program
                    found.setdefault(name, {}).setdefault(key, set()).add(default)
    return found


IN_CODE = settings_in_code()
IN_TABLE = {code_words(row[0])[0]: row for row in table_rows(SETTINGS, "name")}


def test_the_settings_are_those_that_the_code_reads() -> None:
    assert sorted(IN_TABLE) == sorted(IN_CODE)


def test_the_settings_are_sorted() -> None:
    assert list(IN_TABLE) == sorted(IN_TABLE)


def test_the_table_of_old_names_is_what_rapid_does_with_them() -> None:
    rows = {code_words(row[0])[0]: row[1:] for row in table_rows(SETTINGS, "before")}

    assert rows.pop(INIT_CONTAINER)[0] == f"`{INIT_CONTAINER}`"
    assert list(rows) == sorted(ALIASES | FORMER)
    for name, (now, plain) in rows.items():
        assert now == f"`{PREFIX}{name}`"
        expected = f"sets rapid where {now} does not" if name in ALIASES else "the function's"
        assert plain == expected


def test_every_setting_of_rapid_has_the_prefix_or_a_name_of_aws() -> None:
    names = {name for name, row in IN_TABLE.items() if row[2] in ("rapid", "both")}

    assert names - {INIT_CONTAINER} == {
        name for name in names if name.startswith((PREFIX, "AWS_")) or name == "_HANDLER"
    }
    assert {name.removeprefix(PREFIX) for name in names} >= ALIASES | FORMER


@pytest.mark.parametrize("name", sorted(IN_TABLE))
def test_the_settings_name_the_programs_that_read(name: str) -> None:
    programs = sorted(IN_CODE.get(name, {}))

    assert IN_TABLE[name][2] == ("both" if programs == ["rapid", "server"] else ", ".join(programs))


@pytest.mark.parametrize("name", sorted(IN_TABLE))
def test_the_settings_state_the_default_of(name: str) -> None:
    stated = code_words(IN_TABLE[name][1])
    defaults = {default for each in IN_CODE.get(name, {}).values() for default in each}

    for default in defaults:
        if isinstance(default, bool):
            assert str(default).upper() in stated
        elif isinstance(default, int | float) and default:
            assert f"{default:g}" in stated
        elif isinstance(default, str) and default:
            assert default in stated


def test_the_flags_of_rapid_are_named() -> None:
    rows = [row for row in table_rows(SETTINGS, "flag") if row[1] in ("rapid", "all")]
    named = {word.split()[0] for row in rows for word in code_words(row[0])}

    assert named == set(re.findall(r"--[a-z-]+", USAGE.partition("Example:")[0]))


@pytest.mark.parametrize("command", ["dev", "invoke"])
def test_the_options_of_lambda_server_are_named(command: str) -> None:
    rows = [row for row in table_rows(SETTINGS, "flag") if row[1] == command]
    named = {word for row in rows for word in code_words(row[0])}
    options = [
        option
        for parameter in lambda_server.commands[command].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    ]

    assert named == {option for option in options if option.startswith("--")}


def command_paths(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_paths(command, *path, name)
        else:
            yield (*path, name)


def help_of(*path: str) -> list[str]:
    return CliRunner().invoke(lambda_server, [*path, "--help"]).output.splitlines()


@pytest.mark.parametrize("path", list(command_paths(lambda_server)), ids=" ".join)
def test_the_help_of_lambda_server_fits_80_columns_uncut(
    path: tuple[str, ...],
) -> None:
    lines = help_of(*path)

    assert not [line for line in lines[1:] if line.endswith("...") and "=" not in line]
    assert max(map(len, lines)) <= 80


def test_the_help_of_serve_has_settings_with_the_defaults_of_the_reference() -> None:
    text = "\n".join(help_of("serve"))

    shown = re.findall(r"^    ([A-Z_]+)  .*?(?:\[([^],]+).*)?$", text, re.MULTILINE)

    assert dict(shown).keys() >= {"AMQP_URI", "LAMBDA_ENDPOINTS", "PORT"}
    for name, default in shown:
        assert IN_TABLE[name][1] == (f"`{default}`" if default else "none")


def test_the_broker_takes_the_options_that_are_named() -> None:
    paragraph = SETTINGS.partition("\nOptions of the broker's URI")[2].partition("\n\n")[0]
    options = [word for word in code_words(paragraph) if re.fullmatch(r"[a-z_]+", word)]
    options = [option for option in options if option != "verify_none"]
    assert {"heartbeat", "cacertfile"} <= set(options)

    for option in options:
        uri = f"amqp://127.0.0.1/?{option}=5000"
        connection_parameters(BrokerAddress(uri=uri), name="test")


# --- errors


def test_the_codes_of_the_invoke_api_are_named() -> None:
    named = {(code_words(row[0])[0], int(row[1])) for row in table_rows(ERRORS, "code")}

    errors = (*LambdaApiError.__subclasses__(), *ServiceException.__subclasses__())
    assert named == {(error.code, error.status) for error in errors}


def test_the_error_types_of_the_platform_are_named() -> None:
    named = [word for row in table_rows(ERRORS, "errorType") for word in code_words(row[0])]

    assert sorted(named) == sorted(ErrorType)


# --- messages

#: What begins so is RabbitMQ's, the kernel's, a command, or a header.
OTHERS_WORDS = re.compile(
    r"ACCESS_REFUSED|PRECONDITION_FAILED|RESOURCE_LOCKED"
    r"|rabbitmqctl|lambda-server|vhost|-c |kubectl|scripts|make |X-"
    r"|no such file|exec format|permission denied|exit status"
)


def text_of(part: ast.expr) -> str:
    """Return a part of an f-string, or a line end for what is filled in."""
    return str(part.value) if isinstance(part, ast.Constant) else "\n"


def said_by_the_programs() -> str:
    """Return every text in the source, with a line end in the place of what is filled in."""
    texts = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(map(text_of, node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n\n".join(texts)


def test_the_messages_that_troubleshooting_lists_are_the_programs() -> None:
    said = said_by_the_programs()
    named = [
        code_words(line.split("|")[1])
        for page in ("docs/troubleshooting.md", "docs/how-to/debug-a-start.md")
        for line in (ROOT / page).read_text().splitlines()
        if line.startswith("| `")
    ]
    messages = [word for words in named for word in words if " " in word]
    messages = [message for message in messages if not OTHERS_WORDS.match(message)]
    parts = [
        part.strip(" .:;")
        for message in messages
        for part in re.split("…|\\.\\.\\.|NAME(?:\\.events)?|PORT|RAPID_PORT|9001", message)
    ]

    assert len(messages) > 25
    assert [part for part in parts if len(part) > 7 and part not in said] == []


# --- metrics


def scraped(program: WebProgram) -> dict[str, str]:
    """Return the type of each metric family of ours, by name."""
    text = program.get("/metrics").body.decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    return {
        name: kind
        for name, kind in families.items()
        if not name.startswith(("python_", "process_")) and not name.endswith("_created")
    }


def test_the_metrics_that_are_scraped_are_named() -> None:
    name = unique_name()
    with Rapid(ECHO, AWS_LAMBDA_FUNCTION_NAME=name) as rapid:
        endpoint = f"{name}=http://127.0.0.1:{rapid.port}"
        with Server(LAMBDA_ENDPOINTS=endpoint) as server:
            assert server.invoke(name).status == 200
            assert server.get("/nowhere").status == 404  # what the exporter counts
            of_rapid, of_server = scraped(rapid), scraped(server)

    rows = table_rows(METRICS, "metric")
    for program, families in (("rapid", of_rapid), ("server", of_server)):
        named = {code_words(row[0])[0]: row[1] for row in rows if row[2] in ("both", program)}
        assert named == families


# --- commands, paths, examples


def problems_of_links(document: Path, text: str) -> Iterator[str]:
    """Yield the links of a document that lead to no file, or to no heading of it."""
    outside_code = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", outside_code):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists():
            yield target
        elif anchor:
            linked = text if file == document else file.read_text()
            if anchor not in anchors(linked):
                yield target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert list(problems_of_links(document, document.read_text())) == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    text = "# One `two`\n[a](#one-two) [b](#three) [c](docs/no.md) [d](CHANGELOG.md#no) [e](docs)"

    assert list(problems_of_links(ROOT / "README.md", text)) == [
        "#three",
        "docs/no.md",
        "CHANGELOG.md#no",
    ]


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s:]+\.md)[^)]*\)", page.read_text())
        new |= {(page.parent / link).resolve() for link in links} - seen

    assert sorted(set(DOCUMENTS) - seen) == [ROOT / "docs" / "PACKAGE.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_modules_that_are_named_are_there(document: Path) -> None:
    packages = "|".join((*PACKAGES, "bench", "devtools", "tests", "scripts"))
    named = re.findall(rf"`((?:{packages})/[\w/.-]*\w/?)`", document.read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 125


def test_the_glossary_is_sorted_and_has_each_word_once() -> None:
    words = [row[0].lower() for row in table_rows(GLOSSARY, "word")]

    assert words == sorted(set(words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_has_the_targets_that_are_named(document: Path) -> None:
    named = re.findall(r"`make ([a-z0-9-]+)[^`]*`", document.read_text())

    assert set(named) <= make_targets()


def test_no_example_has_a_program_on_the_port_of_the_runtime_api() -> None:
    examples = [*DOCUMENTS, *(ROOT / "examples").rglob("*.toml"), ROOT / "docker-compose.yaml"]
    taken = re.compile(r"(?:--port[ =]|\bPORT=|=http://[\w.\[\]:]+:)9001\b")

    assert [str(path) for path in examples if taken.search(path.read_text())] == []


def test_what_the_examples_write_into_the_checkout_is_ignored_by_git() -> None:
    written = ["examples/image-greyscale/request.txt", "examples/image-greyscale/output.png",
               "request.txt", "output.png", "answer.json"]  # fmt: skip
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")

    done = subprocess.run(
        ["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == written


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_are_python(block: Block) -> None:
    ast.parse(block.text)


def test_contributing_lists_every_room() -> None:
    listed = {code_words(row[0])[0].rstrip("/") for row in table_rows(CONTRIBUTING, "room")}
    packages = {
        str(path.parent.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }

    assert listed == packages


def test_the_functions_of_the_example_can_be_run() -> None:
    functions = read_functions(ROOT / "examples" / "functions.toml")

    assert [function.name for function in functions] == ["echo-lambda", "hello"]
    assert all((function.cwd / function.command[0]).is_file() for function in functions)


def test_each_test_that_the_threat_table_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
