from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT


def in_a_fresh_interpreter(code: str) -> str:
    """Return what ``code`` prints after the module that imports pika."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, lambda_protocol.amqp_connection, pika\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_no_adapter_is_imported() -> None:
    code = "print([n for n in sys.modules if n.startswith('pika.adapters') or n == 'asyncio'])"

    assert in_a_fresh_interpreter(code) == "[]"


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("BlockingConnection", "pika.adapters.blocking_connection"),
        ("SelectConnection", "pika.adapters.select_connection"),
        ("BaseConnection", "pika.adapters.base_connection"),
        ("AMQPConnectionWorkflow", "pika.adapters.utils.connection_workflow"),
    ],
)
def test_an_adapter_is_there_for_other_code(name: str, owner: str) -> None:
    assert in_a_fresh_interpreter(f"print(pika.{name}.__module__)") == owner


def test_the_adapters_can_be_imported() -> None:
    code = "import pika.adapters.blocking_connection; print(pika.adapters.BlockingConnection)"

    assert "blocking_connection" in in_a_fresh_interpreter(code)
    assert "pika.adapters" in in_a_fresh_interpreter("print(pika.adapters)")


def test_pika_has_no_other_attribute_than_before() -> None:
    assert in_a_fresh_interpreter("print(hasattr(pika, 'nothing'))") == "False"
