"""What docker-compose.yaml promises, without docker."""

from __future__ import annotations

import configparser
from typing import Any, Final

import pytest
import yaml

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


def versions() -> dict[str, str]:
    path = ROOT / "k8s" / "versions" / "kustomization.yaml"
    return {each["name"]: each["newTag"] for each in yaml.safe_load(path.read_text())["images"]}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_it_runs_the_broker_the_server_and_both_functions(services: Any) -> None:
    assert set(services) == {"rabbitmq", "lambda-server", *FUNCTIONS}


def test_images_have_the_versions_that_kubernetes_has(services: Any) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    ours = config["metadata"]["version"]

    assert services["rabbitmq"]["image"] == f"rabbitmq:{versions()['rabbitmq']}"
    for name in ("lambda-server", *FUNCTIONS):
        assert services[name]["image"] == f"{name}:{ours}"


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


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_set_as_on_kubernetes(services: Any, function: str) -> None:
    environment = services[function]["environment"]
    on_kubernetes = {each["name"]: each["value"] for each in deployment(function)["env"]}

    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == function
    assert on_kubernetes.items() <= environment.items()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rapid_is_mounted_where_the_images_look_for_the_emulator(
    services: Any, function: str
) -> None:
    (mount,) = services[function]["volumes"]

    assert mount["source"] == "./dist/lambda-runtime-api-daemon"
    assert mount["target"] == "/usr/local/bin/aws-lambda-rie"
    assert mount["read_only"] is True
    # Docker would make an empty folder of a file that is not there yet, and say nothing.
    assert mount["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stop_waits_longer_than_a_call_may_take(services: Any, function: str) -> None:
    service = services[function]

    timeout_s = int(service["environment"]["AWS_LAMBDA_FUNCTION_TIMEOUT"])
    assert seconds(service["stop_grace_period"]) > timeout_s


def test_a_stopping_server_outlives_the_longest_call(services: Any) -> None:
    assert seconds(services["lambda-server"]["stop_grace_period"]) > 930


@pytest.mark.parametrize("name", ["lambda-server", *FUNCTIONS])
def test_our_containers_can_do_little(services: Any, name: str) -> None:
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
