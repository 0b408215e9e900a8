"""What is used of pika and gunicorn beside their documented interfaces is there."""

from __future__ import annotations

import configparser
import importlib.metadata

import pika.connection
import pytest
from packaging.requirements import Requirement

from lambda_protocol.amqp_connection import PIKA_PRIVATE
from lambda_server.worker import GUNICORN_PRIVATE
from tests.support import ROOT


@pytest.mark.parametrize("name", PIKA_PRIVATE)
def test_pika_has_the_private_name(name: str) -> None:
    assert callable(getattr(pika.connection.Connection, name, None))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in GUNICORN_PRIVATE.items() for name in names],
)
def test_gunicorn_has_the_private_name(owner: type, name: str) -> None:
    assert callable(getattr(owner, name, None))


@pytest.mark.parametrize("package", ["pika", "gunicorn"])
def test_a_package_whose_private_parts_are_used_has_an_upper_bound(package: str) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    (requirement,) = [
        Requirement(line)
        for line in lines
        if line and not line.startswith("#") and Requirement(line).name == package
    ]

    assert any(specifier.operator == "<" for specifier in requirement.specifier)
    assert importlib.metadata.version(package) in requirement.specifier
