"""What docker-compose.yaml promises, without docker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lambda_protocol import __version__
from tests.support import ROOT

FUNCTIONS: Final = ("echo-lambda", "image-greyscale-lambda")


@pytest.fixture(scope="module")
def services() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]


def deployment(function: str) -> Any:
    """Return the container of the same function on Kubernetes."""
    path = ROOT / "k8s" / "base" / f"{function}.yaml"
    pod = yaml.safe_load(path.read_text())["spec"]["template"]["spec"]
    return pod["containers"][0]


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_it_runs_the_broker_the_server_and_both_functions_of_this_version(services: Any) -> None:
    """RabbitMQ's version is compared by tests/acceptance/k8s/test_versions.py."""
    assert set(services) == {"rabbitmq", "lambda-server", *FUNCTIONS}
    for name in ("lambda-server", *FUNCTIONS):
        assert services[name]["image"] == f"{name}:{__version__}"


def test_ports_are_open_to_this_machine_only(services: Any) -> None:
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_all_log_in_to_the_broker_as_the_user_that_it_makes(services: Any) -> None:
    broker = services["rabbitmq"]["environment"]
    for name, prefix in [("lambda-server", ""), *((name, "RAPID_") for name in FUNCTIONS)]:
        environment = services[name]["environment"]
        assert environment[f"{prefix}AMQP_URI"] == "amqp://rabbitmq"
        assert environment[f"{prefix}AMQP_USERNAME"] == broker["RABBITMQ_DEFAULT_USER"]
        assert environment[f"{prefix}AMQP_PASSWORD"] == broker["RABBITMQ_DEFAULT_PASS"]


def test_no_password_is_in_the_file(services: Any) -> None:
    text = (ROOT / "docker-compose.yaml").read_text()

    references = re.findall(r"\$\{([^}]*)\}", text)
    assert {each.partition(":?")[0] for each in references} == {"RABBITMQ_PASSWORD"}
    assert all(":?is not set; " in each for each in references)
    for service in services.values():
        for name, value in service["environment"].items():
            assert "PASS" not in name or value.startswith("${RABBITMQ_PASSWORD:?")


def test_the_line_that_makes_a_password_makes_one_that_only_we_read(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yaml").read_text()
    (line,) = [line.strip("# ") for line in text.splitlines() if "> .env" in line]

    made = set()
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        subprocess.run(["sh", "-c", line], cwd=folder, check=True)
        assert (folder / ".env").stat().st_mode & 0o777 == 0o600
        made.add((folder / ".env").read_text())

    assert len(made) == 2
    assert all(re.fullmatch(r"RABBITMQ_PASSWORD=[0-9a-f]{32}\n", each) for each in made)
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert line in (ROOT / "docs" / "how-to" / "one-host.md").read_text()


def test_functions_reach_the_broker_and_nothing_else_of_ours(services: Any) -> None:
    networks = {name: set(service["networks"]) for name, service in services.items()}

    for function in FUNCTIONS:
        (own,) = networks[function]
        assert {name for name, those in networks.items() if own in those} == {function, "rabbitmq"}
    assert networks["rabbitmq"] == set().union(*networks.values())
    assert "management" not in services["rabbitmq"]["image"]
    assert "ports" not in services["rabbitmq"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_set_as_on_kubernetes_and_has_rapid_in_the_emulators_place(
    services: Any, function: str
) -> None:
    service = services[function]
    environment = service["environment"]
    on_kubernetes = {each["name"]: each["value"] for each in deployment(function)["env"]}
    (mount,) = service["volumes"]

    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == function
    assert on_kubernetes.items() <= environment.items()
    # Beside a function nothing is started: its variables hold the broker's password.
    assert service["healthcheck"] == {"disable": True}
    assert not {"post_start", "pre_stop"} & service.keys()
    assert mount["source"] == "./dist/lambda-runtime-api-daemon"
    assert mount["target"] == "/usr/local/bin/aws-lambda-rie"
    assert mount["read_only"] is True
    # Docker would make an empty folder of a file that is not there yet, and say nothing.
    assert mount["bind"] == {"create_host_path": False}


def test_a_stop_waits_longer_than_a_call_may_take(services: Any) -> None:
    for function in FUNCTIONS:
        timeout_s = int(services[function]["environment"]["AWS_LAMBDA_FUNCTION_TIMEOUT"])
        assert seconds(services[function]["stop_grace_period"]) > timeout_s
    assert seconds(services["lambda-server"]["stop_grace_period"]) > 930


@pytest.mark.parametrize("name", ["lambda-server", *FUNCTIONS])
def test_our_containers_can_do_little(services: Any, name: str) -> None:
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
