from __future__ import annotations

import pytest

from rapid.settings.availability_zone import first_zone_id
from tests.acceptance.conformance.puppet import Puppet
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import MISBEHAVE, Answer, Client

conformance = pytest.mark.conformance

PATH = "/2026-01-15/metadata/execution-environment"


def ask(environ: dict[str, str], **headers: str) -> Answer:
    """Ask the endpoint of these variables, with their token unless ``headers`` say otherwise."""
    port = int(environ["AWS_LAMBDA_METADATA_API"].rpartition(":")[2])
    headers = headers or {"Authorization": f"Bearer {environ['AWS_LAMBDA_METADATA_TOKEN']}"}
    with Client(port) as client:
        return client.get(PATH, **headers)


@conformance(126)
def test_runtime_and_extensions_can_ask_for_the_availability_zone(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(MISBEHAVE, **extension.environ)
    of_runtime = rapid.do(do="env").json()["environ"]
    (of_extension,) = extension.written("environ")

    answer = ask(of_runtime)

    assert (answer.status, answer.json()) == (200, {"AvailabilityZoneID": "use1-az1"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, max-age=43200, immutable"
    assert ask(of_extension).json() == answer.json()


@conformance(126)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X_Other": "1"}, id="none"),
        pytest.param({"Authorization": "Bearer guessed"}, id="another"),
        pytest.param({"Authorization": "Bearer"}, id="empty"),
    ],
)
def test_without_the_token_and_to_another_method_metadata_are_refused(
    puppet: Puppet, headers: dict[str, str]
) -> None:
    answer = puppet.runtime.get(PATH, **headers)

    assert answer.status == 401
    assert answer.headers["Content-Type"]
    assert puppet.runtime.post(PATH).status == 405


@conformance(126)
def test_each_environment_has_a_token_of_its_own(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    first = rapid.do(do="env").json()["environ"]
    rapid.do(do="exit")
    second = rapid.do(do="env").json()["environ"]

    old_token = f"Bearer {first['AWS_LAMBDA_METADATA_TOKEN']}"
    assert ask(second).status == 200
    assert ask(second, Authorization=old_token).status == 401


@conformance(126)
def test_the_zone_is_that_of_the_region_or_the_one_that_is_set(start_rapid: StartRapid) -> None:
    settings = {"AWS_REGION": "eu-west-1", "RAPID_AVAILABILITY_ZONE_ID": "euw1-az3"}
    rapid = start_rapid(MISBEHAVE, **settings)

    assert ask(rapid.do(do="env").json()["environ"]).json() == {"AvailabilityZoneID": "euw1-az3"}


@pytest.mark.parametrize(
    ("region", "zone"),
    [
        ("us-east-1", "use1-az1"),
        ("us-west-2", "usw2-az1"),
        ("ap-northeast-3", "apne3-az1"),
        ("ap-southeast-2", "apse2-az1"),
        ("ap-south-1", "aps1-az1"),
        ("ca-central-1", "cac1-az1"),
        ("us-gov-west-1", "usgw1-az1"),
        ("cn-northwest-1", "cnnw1-az1"),
        ("local", "local-az1"),
    ],
)
def test_the_id_of_a_regions_first_zone_is_made_as_aws_makes_it(region: str, zone: str) -> None:
    assert first_zone_id(region) == zone
