from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from rapid.apis.telemetry_api import TelemetryApiError, parse_subscription
from rapid.telemetry.schema import Schema
from rapid.telemetry.subscription import Endpoint, Subscription

TELEMETRY = [Schema.TELEMETRY_2022_07, Schema.TELEMETRY_2022_12, Schema.TELEMETRY_2025]
RUNTIME_API_PORT = 9001
BODY: dict[str, Any] = {
    "schemaVersion": "2022-12-13",
    "types": ["function", "platform"],
    "buffering": {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 100},
    "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/path"},
}


def parse(body: object) -> Subscription:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_subscription(data, TELEMETRY, None, RUNTIME_API_PORT)


def test_a_subscription_is_what_was_asked_for() -> None:
    assert parse(BODY) == Subscription(
        schema=Schema.TELEMETRY_2022_12,
        types=("platform", "function"),
        endpoint=Endpoint(port=8080, path="/path", host="sandbox.localdomain:8080"),
        max_items=1000,
        max_bytes=262_144,
        timeout_s=0.1,
    )


@pytest.mark.parametrize("buffering", [None, {}, {"maxItems": None}])
def test_what_is_not_said_of_buffering_has_awss_default(buffering: object) -> None:
    found = parse({**BODY, "buffering": buffering})

    assert (found.max_items, found.max_bytes, found.timeout_s) == (10_000, 262_144, 1.0)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (
            {"protocol": "HTTP", "URI": "http://sandbox:8080"},
            Endpoint(port=8080, path="/", host="sandbox:8080"),
        ),
        (
            {"protocol": "HTTP", "URI": "http://sandbox.localdomain/a?b=c#d"},
            Endpoint(port=80, path="/a?b=c", host="sandbox.localdomain"),
        ),
        (
            {"protocol": "HTTP", "URI": "http://sandbox:1/", "method": "PUT", "encoding": "JSON"},
            Endpoint(port=1, path="/", host="sandbox:1", method="PUT"),
        ),
        ({"protocol": "TCP", "port": 65_535}, Endpoint(port=65_535)),
    ],
    ids=["no path", "no port", "put", "tcp"],
)
def test_a_destination_is_read(destination: dict[str, Any], expected: Endpoint) -> None:
    assert parse({**BODY, "destination": destination}).endpoint == expected


@pytest.mark.parametrize(
    "uri",
    [
        "http://sandbox:0",
        f"http://sandbox:{RUNTIME_API_PORT}",
        "http://user@sandbox:8080",
        "http://:x@sandbox:1/",
        "http://@sandbox:1/",
        "http://sandbox:8080/ HTTP/1.1",
        "http://sandbox:8080/\u00e9",
        "http://[",
        "http://sand\tbox:8080",
        "//sandbox:8080",
        "sandbox:8080",
        "",
        None,
        8080,
    ],
)
def test_a_uri_that_cannot_be_delivered_to_is_refused(uri: object) -> None:
    with pytest.raises(TelemetryApiError) as caught:
        parse({**BODY, "destination": {"protocol": "HTTP", "URI": uri}})

    assert (caught.value.status, caught.value.error_type) == (400, "ValidationError")


def mutated(noise: random.Random) -> bytes:
    """Return a body that is wrong in some place, or broken."""
    odd: list[Any] = [None, True, -1, 0, 1e400, 10**30, "", "\u0000", "x" * 5000, [], [[]], {}]
    odd += [{"a": 1}, ["platform"] * 5000, "2022-07-01", "http://sandbox:80", "HTTP", "TCP", 1024]
    body = json.loads(json.dumps(BODY))
    for _ in range(noise.randrange(1, 4)):
        place = noise.choice([body, body["buffering"], body["destination"]])
        if isinstance(place, dict):
            name = noise.choice([*place, "port", "method", "new"])
            place[name] = copy.deepcopy(noise.choice(odd))
        for name in ("buffering", "destination"):
            body.setdefault(name, {})
    data = json.dumps(body).encode()
    if noise.random() < 0.3:
        at = noise.randrange(len(data))
        data = data[:at] + noise.randbytes(noise.randrange(8)) + data[at + noise.randrange(8) :]
    return data


@pytest.mark.timeout(300)  # some seconds, or a minute on a busy machine
def test_20000_fuzzed_bodies_are_subscriptions_or_refused() -> None:
    noise = random.Random(11)
    taken, refused = 0, []
    for _ in range(20_000):
        try:
            parse(mutated(noise))
            taken += 1
        except TelemetryApiError as error:
            refused.append(error)

    assert taken > 100
    assert len(refused) > 10_000
    assert {(error.status, error.error_type) for error in refused} == {(400, "ValidationError")}
    assert max(len(str(error)) for error in refused) < 300
