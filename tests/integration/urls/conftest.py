"""Fixtures: a function with a URL behind each front, with real processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from lambda_server.urls.sources import LEARNING_S
from tests import support
from tests.support import WEB, Answer, Client, Rapid, RawConnection, Server, unique_name, wait_for

SHOP = "https://shop.example"
CORS: Final = {"AllowOrigins": [SHOP], "AllowMethods": ["GET", "PUT"], "ExposeHeaders": ["x-id"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A program that serves the URL of the function ``name`` by its path."""

    program: Server | Rapid
    rapid: Rapid
    #: Whether gunicorn itself reads requests: it refuses bytes, and joins cookies by a comma.
    has_gunicorns_reader: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.rapid.function_name

    @property
    def prefix(self) -> str:
        """What comes before the function's own path."""
        return f"/lambda-url/{self.name}"

    def patient_client(self) -> Client:
        """Return a client that waits longer than a server that learns of functions."""
        return Client(self.program.port, 2 * LEARNING_S)

    @property
    def host(self) -> str:
        """The function's host, in letters of both cases."""
        return f"{self.name.upper()}.Lambda-URL.us-east-1.localhost:{self.program.port}"

    def client(self) -> Client:
        """Return a client that keeps its connection."""
        return self.program.client()

    def raw(self) -> RawConnection:
        """Return a raw connection."""
        return self.program.raw()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request to the function, on a connection of its own."""
        with self.client() as client:
            return client.request(method, self.prefix + path, body, headers)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path of the function."""
        return self.request("GET", path, None, {n.replace("_", "-"): headers[n] for n in headers})

    def answer(self, payload: Any) -> Answer:
        """Have the function answer ``payload``."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.request("POST", "/answer", body)


def start_web(**settings: Any) -> Rapid:
    """Return a rapid, to be entered, whose function ``web`` has a URL."""
    settings.setdefault("AWS_LAMBDA_FUNCTION_NAME", unique_name("my_web-Fn"))
    settings.setdefault("RAPID_FUNCTION_URL_AUTH_TYPE", "NONE")
    return Rapid(WEB, **settings)


def wait_for_url(server: Server, name: str) -> None:
    """Wait until the server knows the URL."""

    def is_known() -> bool | None:
        with server.client() as client:
            return client.get(f"/lambda-url/{name}/x").status != 403 or None

    wait_for(is_known, f"the URL of {name}")


@contextlib.contextmanager
def _rapid(_request: pytest.FixtureRequest, **settings: str) -> Iterator[Front]:
    with start_web(**settings) as rapid:
        yield Front(program=rapid, rapid=rapid)


@contextlib.contextmanager
def _direct(_request: pytest.FixtureRequest, **settings: str) -> Iterator[Front]:
    with start_web(**settings) as rapid, Server(LAMBDA_ENDPOINTS=rapid.endpoint) as server:
        yield Front(program=server, rapid=rapid)


def _by_broker(name: str) -> Callable[..., Any]:
    @contextlib.contextmanager
    def front(request: pytest.FixtureRequest, **settings: str) -> Iterator[Front]:
        server = request.getfixturevalue("_servers")[name]
        uri = request.getfixturevalue("broker")
        with start_web(RAPID_AMQP_URI=uri, **settings) as rapid:
            wait_for_url(server, rapid.function_name)
            is_gthread = name == "gthread"
            yield Front(program=server, rapid=rapid, has_gunicorns_reader=is_gthread)

    return front


#: The workers of a server with a broker: gunicorn's options and the setting.
_WORKERS: Final[dict[str, tuple[list[str], str]]] = {
    "threads": ([], "threads"),
    "polling": ([], "polling"),
    "gthread": (["-k", "gthread"], "threads"),
}
_SETTINGS: Final = {"RAPID_MAX_CONCURRENCY": "2", "RAPID_FUNCTION_URL_CORS": json.dumps(CORS)}


@pytest.fixture(scope="session")
def _servers(broker: str) -> Iterator[dict[str, Server]]:
    """Start a server of each worker."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Server(*options, AMQP_URI=broker, LAMBDA_WORKER=worker))
            for name, (options, worker) in _WORKERS.items()
        }


_FRONTS: Final = [
    pytest.param(_rapid, id="rapid"),
    pytest.param(_direct, id="direct"),
    *(pytest.param(_by_broker(name), id=name, marks=pytest.mark.broker) for name in _WORKERS),
]


@pytest.fixture(scope="module", params=_FRONTS)
def _front(request: pytest.FixtureRequest) -> Iterator[Front]:
    with request.param(request, **_SETTINGS) as front:
        yield front


@pytest.fixture
def front(_front: Front) -> Front:
    """Give a front; never stop it."""
    support.started.extend({_front.program, _front.rapid})
    return _front


@pytest.fixture(scope="module", params=_FRONTS)
def _streaming(request: pytest.FixtureRequest) -> Iterator[Front]:
    mode = {"RAPID_FUNCTION_URL_INVOKE_MODE": "RESPONSE_STREAM"}
    with request.param(request, **_SETTINGS, **mode) as front:
        yield front


@pytest.fixture
def streaming(_streaming: Front) -> Front:
    """Give a front of a function that streams; never stop it."""
    support.started.extend({_streaming.program, _streaming.rapid})
    return _streaming


@pytest.fixture
def server_front(front: Front) -> Front:
    """Give a front that is a Lambda Server."""
    if isinstance(front.program, Rapid):
        pytest.skip("rapid has one function, and no hosts")
    return front
