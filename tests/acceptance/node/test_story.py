"""What a user is told to do, done on a real node, in the order of the README."""

from __future__ import annotations

import json
import shlex
from typing import Final

import pytest
import yaml

from tests.acceptance.node.functions import invoke
from tests.acceptance.node.kube import Object
from tests.acceptance.node.node import mounts_image_volumes
from tests.acceptance.node.workplace import Workplace
from tests.support import AWS_CLI, ROOT

_URL: Final = "http://localhost:8080/2015-03-31/functions"
_EXAMPLE: Final = ROOT / "examples" / "image-greyscale"


def curl(cluster: Workplace, function: str, *options: str) -> tuple[int, str]:
    """Return status and body of what curl prints."""
    url = f"{_URL}/{function}/invocations"
    done = cluster.run("curl", "-sS", "-XPOST", "-w", "\n%{http_code}", url, *options)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_up_says_how_to_call_and_where_everything_is(up: str) -> None:
    assert "curl -XPOST http://127.0.0.1:8080/2015-03-31/functions/echo-lambda/invocations" in up
    for port in (8080, 5672, 15672, 15692, 9090, 5000, 30000):
        assert f"127.0.0.1:{port}" in up


def test_echo_lambda_answers_curl(cluster: Workplace) -> None:
    assert curl(cluster, "echo-lambda", "-d", '"a string"') == (200, '"a string"')


def test_echo_lambda_answers_the_aws_command_that_up_has_printed(
    cluster: Workplace, up: str
) -> None:
    lines = up[up.index("echo '") :].splitlines()[:3]
    printed = " ".join(line.strip().removesuffix("\\") for line in lines)
    command = printed.replace("| aws ", f"| {shlex.join(AWS_CLI)} ")

    done = cluster.run("sh", "-c", f"cd {cluster.folder} && {command}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('{"key": "value"}')


def test_image_greyscale_makes_a_photograph_a_png(cluster: Workplace) -> None:
    request = cluster.folder / "request.txt"
    request.write_text(json.dumps({"body": (_EXAMPLE / "cat.jpg").read_bytes().hex()}))

    status, body = curl(cluster, "image-greyscale-lambda", "-d", f"@{request}")
    answer = json.loads(body)

    assert (status, answer["statusCode"]) == (200, 200)
    assert bytes.fromhex(answer["body"]).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("name", ["hpa", "keda", "keda-prometheus-trigger"])
def test_the_flat_manifest_works_as_it_is(cluster: Workplace, name: str) -> None:
    if "keda" in name and not cluster.has_keda:
        pytest.skip("KEDA is not built: make node-check KEDA=1")
    if "keda" in name:
        cluster.cluster("up", "--scaling", "keda")
    file = f"k8s/lambdas-{name}.yaml"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
    for function in ("echo-lambda", "image-greyscale-lambda"):
        deployment = f"deployment/{function}"
        cluster.kubectl("-n", "lambda", "rollout", "status", deployment, "--timeout=120s")

    assert invoke("echo-lambda", {"key": "value"}).body == b'{"key": "value"}'
    for function in ("echo-lambda", "image-greyscale-lambda"):
        cluster.kubectl("-n", "lambda", "delete", "hpa", function, "--ignore-not-found")


def test_the_image_volume_works(cluster: Workplace) -> None:
    if not mounts_image_volumes():
        pytest.skip("containerd is older than 2.1, which mounts no image volumes")
    documents = list(yaml.safe_load_all(cluster.kubectl("kustomize", "k8s/overlays/image-volume")))
    deployments = [each for each in documents if each["kind"] == "Deployment"]
    cluster.kube.apply(deployments)

    cluster.kubectl("-n", "lambda", "rollout", "status", "deployment/echo-lambda")

    assert invoke("echo-lambda", {"key": "value"}).body == b'{"key": "value"}'


def test_status_tells_each_part_and_that_all_are_ready(cluster: Workplace) -> None:
    said = cluster.cluster("status")

    for part in ("lambda-server", "rabbitmq", "prometheus", "registry", "echo-lambda"):
        assert any(line.startswith(part) for line in said.splitlines()), said


def test_restart_replaces_the_pods_while_calls_go_on(cluster: Workplace) -> None:
    before = _pods(cluster)

    cluster.cluster("restart")

    assert before.isdisjoint(_pods(cluster))
    assert invoke("echo-lambda", {"key": "value"}).status == 200


def test_push_replaces_the_pods_of_our_images(cluster: Workplace) -> None:
    before = _pods(cluster)

    said = cluster.cluster("push")

    assert "Images: pushed" in said
    assert before.isdisjoint(_pods(cluster))


def test_token_prints_a_token_alone(cluster: Workplace) -> None:
    (line,) = cluster.cluster("token").splitlines()

    assert line.count(".") == 2


def test_kubectl_shows_logs_and_runs_commands(cluster: Workplace) -> None:
    invoke("echo-lambda", {"key": "value"})

    logs = cluster.kubectl("-n", "lambda", "logs", "deployment/echo-lambda")
    executed = cluster.kubectl("-n", "lambda", "exec", "deployment/echo-lambda", "--", "id", "-u")

    assert logs
    assert executed == "1000\n"


def _pods(cluster: Workplace) -> set[str]:
    """Return the pods of functions and server that are not on their way out."""
    found: list[Object] = cluster.kube.get("/api/v1/namespaces/lambda/pods")["items"]
    return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}
