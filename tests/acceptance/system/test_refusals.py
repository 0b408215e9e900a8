"""What RabbitMQ refuses: its own words, what was wanted, what to grant; and what is enough."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika import BasicProperties

from devtools.rabbitmq_node import RabbitmqNode
from lambda_protocol.amqp_refusals import exactly
from lambda_server.urls.sources import LEARNING_S
from tests.acceptance.system.amqp import AmqpClient
from tests.conftest import StartRapid, StartServer
from tests.documents import code_words, table_rows
from tests.events import CHRONICLE, Chronicle
from tests.support import ECHO, ROOT, WEB, Client, run_to_end, unique_name, wait_until

ALL = ".*"
NONE = "^$"


class Tenant:
    """A virtual host and a user of their own, on a private node; and a guest who may do all."""

    def __init__(self, node: RabbitmqNode, stack: contextlib.ExitStack) -> None:
        self.node = node
        self.vhost, self.user, self.function_name = (
            unique_name(of) for of in ("vhost", "user", "function")
        )
        self.uri = f"{node.uri.replace('guest:guest', f'{self.user}:secret')}/{self.vhost}"
        self.guest_uri = f"{node.uri}/{self.vhost}"
        self._stack = stack

    @functools.cached_property
    def guest(self) -> AmqpClient:
        """A client of the guest's, open to the end of the test."""
        return self._stack.enter_context(AmqpClient(self.guest_uri))

    def grant(self, configure: str = ALL, write: str = ALL, read: str = ALL) -> None:
        """Set the permissions of the user."""
        self.node.ctl("set_permissions", "-p", self.vhost, self.user, configure, write, read)

    def settings(self, *, as_guest: bool = False) -> dict[str, Any]:
        """Return what a rapid of the tenant is started with."""
        uri = self.guest_uri if as_guest else self.uri
        return {"RAPID_AMQP_URI": uri, "AWS_LAMBDA_FUNCTION_NAME": self.function_name}


@pytest.fixture
def tenant(node: RabbitmqNode) -> Iterator[Tenant]:
    """Give a user who may do everything in a fresh virtual host."""
    with contextlib.ExitStack() as stack:
        tenant = Tenant(node, stack)
        node.ctl("add_vhost", tenant.vhost)
        node.ctl("add_user", tenant.user, "secret")
        node.ctl("set_permissions", "-p", tenant.vhost, "guest", ALL, ALL, ALL)
        tenant.grant()
        yield tenant  # what is left goes with the node's folder


Break = Callable[[Tenant], object]


def limit(kind: str, name: str) -> Break:
    """Return what sets a limit of the virtual host or the user to 0."""

    def set_limit(tenant: Tenant) -> None:
        of = ("-p", tenant.vhost) if kind == "vhost" else (tenant.user,)
        tenant.node.ctl(f"set_{kind}_limits", *of, json.dumps({name: 0}))

    return set_limit


def clear_permissions(tenant: Tenant) -> None:
    tenant.node.ctl("clear_permissions", "-p", tenant.vhost, tenant.user)


def delete_vhost(tenant: Tenant) -> None:
    tenant.node.ctl("delete_vhost", tenant.vhost)


def change_password(tenant: Tenant) -> None:
    tenant.node.ctl("change_password", tenant.user, "another")


def declare_otherwise(tenant: Tenant) -> None:
    tenant.guest.channel.queue_declare(tenant.function_name)


def declare_for_itself(tenant: Tenant) -> None:
    tenant.guest.channel.queue_declare(tenant.function_name, exclusive=True)


def consume_alone(tenant: Tenant) -> None:
    tenant.guest.declare(tenant.function_name)
    tenant.guest.channel.basic_consume(tenant.function_name, lambda *_: None, exclusive=True)


GRANT = "rabbitmqctl set_permissions -p {vhost} {user} "
#: What is broken; what RabbitMQ says; what was wanted; what to do.
CONNECTING = [
    pytest.param(
        clear_permissions, "access to vhost", "connection.open virtual_host", GRANT, id="no-access"
    ),
    pytest.param(
        delete_vhost, "not found", "connection.open", "rabbitmqctl add_vhost {vhost}", id="vhost"
    ),
    pytest.param(
        limit("user", "max-connections"),
        "connection limit",
        "connection.open",
        "rabbitmqctl set_user_limits {user}",
        id="connections-of-the-user",
    ),
    pytest.param(
        limit("vhost", "max-connections"),
        "connection limit",
        "connection.open",
        "rabbitmqctl set_vhost_limits -p {vhost}",
        id="connections-of-the-vhost",
    ),
    pytest.param(
        change_password, "Login was refused", "connection.open", "correct the user", id="login"
    ),
    pytest.param(
        lambda tenant: tenant.grant(write=NONE),
        "access to exchange 'amq.default'",
        "basic.publish",
        GRANT,
        id="write",
    ),
]
DECLARING = [
    pytest.param(
        lambda tenant: tenant.grant(configure=NONE),
        "access to queue '{name}'",
        "queue.declare queue='{name}'",
        GRANT,
        id="configure",
    ),
    pytest.param(
        lambda tenant: tenant.grant(read=NONE),
        "access to queue '{name}'",
        "basic.consume queue='{name}'",
        GRANT,
        id="read",
    ),
    pytest.param(
        declare_otherwise,
        "PRECONDITION_FAILED",
        "queue.declare queue='{name}' durable=True",
        "delete the queue",
        id="other-properties",
    ),
    pytest.param(
        declare_for_itself,
        "RESOURCE_LOCKED",
        "queue.declare queue='{name}'",
        "close the connection that has the queue",
        id="another's-queue",
    ),
    pytest.param(
        consume_alone,
        "in exclusive use",
        "basic.consume queue='{name}'",
        "stop the consumer",
        id="another's-consumer",
    ),
    pytest.param(
        limit("vhost", "max-queues"),
        "queue limit",
        "queue.declare queue='{name}'",
        "rabbitmqctl set_vhost_limits -p {vhost}",
        id="queues-of-the-vhost",
    ),
]


def filled_in(tenant: Tenant, text: str) -> str:
    return text.format(vhost=tenant.vhost, user=tenant.user, name=tenant.function_name)


refusals = functools.partial(pytest.mark.parametrize, ("break_it", "says", "wanted", "remedy"))


@refusals([*CONNECTING, *DECLARING])
def test_rapid_tells_what_the_broker_refuses_and_what_to_do(
    tenant: Tenant, start_rapid: StartRapid, break_it: Break, says: str, wanted: str, remedy: str
) -> None:
    break_it(tenant)

    rapid = start_rapid(ECHO, ready=False, **tenant.settings())

    line = rapid.wait_for_log("RabbitMQ refuses what rapid wants")
    for text in (says, f"wanted={wanted}", remedy):
        assert filled_in(tenant, text) in line
    refused = f"RabbitMQ refuses: {line.partition('broker_says=')[2].partition(' wanted=')[0]}"
    wait_until(lambda: rapid.get("/readyz").json()["status"] == refused, "the reason at /readyz")
    assert rapid.invoke(b"1").body == b"1"
    assert "Traceback" not in "\n".join(rapid.log)
    assert "secret" not in "\n".join(rapid.log)


@refusals(CONNECTING)
def test_the_server_tells_what_the_broker_refuses_and_what_to_do(
    tenant: Tenant, start_server: StartServer, break_it: Break, says: str, wanted: str, remedy: str
) -> None:
    break_it(tenant)

    server = start_server(AMQP_URI=tenant.uri, ready=False)
    answer = server.invoke("f")

    line = server.wait_for_log("RabbitMQ refuses what the server wants")
    for text in (says, f"wanted={wanted}", remedy):
        assert filled_in(tenant, text) in line
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")
    assert filled_in(tenant, says) in answer.json()["Message"]
    assert answer.json()["Message"] == server.get("/readyz").json()["status"]
    assert "secret" not in "\n".join(server.log)


def test_a_call_to_a_queue_that_another_connection_has_for_itself_is_503(
    tenant: Tenant, start_server: StartServer
) -> None:
    server = start_server(AMQP_URI=tenant.uri)
    declare_for_itself(tenant)

    for kind in ("RequestResponse", "DryRun"):
        answer = server.invoke(tenant.function_name, X_Amz_Invocation_Type=kind)

        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
    assert "broker_says=RESOURCE_LOCKED" in server.wait_for_log("queue not reached")


def test_a_queue_of_other_properties_is_declared_when_it_is_gone(
    tenant: Tenant, start_rapid: StartRapid
) -> None:
    declare_otherwise(tenant)
    rapid = start_rapid(ECHO, ready=False, **tenant.settings())
    rapid.wait_for_log("RabbitMQ refuses what rapid wants")

    tenant.guest.delete(tenant.function_name)

    rapid.wait_ready()
    assert tenant.guest.call(tenant.function_name, b"1").body == b"1"


def test_a_virtual_host_that_is_deleted_is_told_and_comes_again(
    tenant: Tenant, start_rapid: StartRapid, start_server: StartServer
) -> None:
    rapid = start_rapid(ECHO, **tenant.settings())
    server = start_server(AMQP_URI=tenant.uri)

    delete_vhost(tenant)
    rapid.wait_for_log(f"NOT_ALLOWED - vhost {tenant.vhost} not found")
    wait_until(lambda: "not found" in server.get("/readyz").json()["status"], "the server to tell")
    tenant.node.ctl("add_vhost", tenant.vhost)
    tenant.grant()

    rapid.wait_ready()
    server.wait_ready()
    assert server.invoke(tenant.function_name, b"1").body == b"1"


# --- the least permissions


def least(tenant: Tenant, program: str, *more_writes: str) -> dict[str, str]:
    """Return the patterns that docs/reference/amqp.md lists for a program."""
    rows = table_rows((ROOT / "docs" / "reference" / "amqp.md").read_text(), "permissions of")
    cells = next(cells for name, *cells in rows if name == program)
    patterns = []
    for cell in cells:
        names = [re.sub("^F", tenant.function_name, word) for word in code_words(cell)]
        patterns.append(exactly(*names) if names else NONE)
    configure, write, read = patterns
    if more_writes:
        write = f"{write}|{exactly(*more_writes)}"
    return {"configure": configure, "write": write, "read": read}


def test_calls_need_no_more_than_the_table_says(tenant: Tenant, start_rapid: StartRapid) -> None:
    name = tenant.function_name
    tenant.grant(**least(tenant, "rapid, for calls"))

    rapid = start_rapid(ECHO, **tenant.settings())

    assert tenant.guest.call(name, b"1").body == b"1"
    line = rapid.wait_for_log("no asynchronous invocations are taken or accepted")
    assert filled_in(tenant, GRANT) in line
    assert f"wanted=queue.declare queue='{name}.dead'" in line


def test_events_need_no_more_than_the_table_says(
    tenant: Tenant, start_rapid: StartRapid, start_server: StartServer, chronicle: Chronicle
) -> None:
    name, guest = tenant.function_name, tenant.guest
    tenant.grant(**least(tenant, "rapid, for calls and asynchronous invocations", "records"))
    guest.channel.exchange_declare("records", "fanout")
    guest.channel.queue_declare("kept")
    guest.channel.queue_bind("kept", "records")
    settings = {"RAPID_ON_SUCCESS": "exchange:records/x", **chronicle.environ, **tenant.settings()}
    rapid = start_rapid(CHRONICLE, **settings)
    server = start_server(AMQP_URI=tenant.guest_uri)

    assert server.invoke(name, b"{}").status == 200
    for event in (b"{}", b'{"fail": true}'):
        assert server.invoke(name, event, X_Amz_Invocation_Type="Event").status == 202
    assert rapid.invoke(b"{}", X_Amz_Invocation_Type="Event").status == 202

    wait_until(lambda: guest.waiting(f"{name}.dead") == 1, "the dead letter")
    wait_until(lambda: guest.waiting("kept") == 2, "the records")
    assert "refuse" not in "\n".join(rapid.log)


def test_the_server_needs_no_more_than_the_table_says(
    tenant: Tenant, start_rapid: StartRapid, start_server: StartServer
) -> None:
    start_rapid(ECHO, **tenant.settings(as_guest=True))
    tenant.grant(**least(tenant, "Lambda Server"))

    server = start_server(AMQP_URI=tenant.uri)

    for kind, status in (("RequestResponse", 200), ("Event", 202), ("DryRun", 204)):
        answer = server.invoke(tenant.function_name, X_Amz_Invocation_Type=kind)
        assert answer.status == status
        assert server.invoke("nobody", X_Amz_Invocation_Type=kind).status == 404


@pytest.mark.parametrize(
    "program", ["rapid, with a function URL besides", "Lambda Server, with function URLs"]
)
def test_a_function_url_needs_no_more_than_the_table_says(
    tenant: Tenant, start_rapid: StartRapid, start_server: StartServer, program: str
) -> None:
    tenant.grant(**least(tenant, program))
    is_rapid = program.startswith("rapid")
    server = start_server(AMQP_URI=tenant.guest_uri if is_rapid else tenant.uri)
    settings = tenant.settings(as_guest=not is_rapid)
    rapid = start_rapid(WEB, RAPID_FUNCTION_URL_AUTH_TYPE="NONE", **settings)

    with Client(server.port, 2 * LEARNING_S) as client:  # it may have to wait for a second word
        assert client.get(f"/lambda-url/{tenant.function_name}/x").status == 200
    assert "refuse" not in "\n".join([*rapid.log, *server.log])


def test_a_url_that_may_not_be_announced_costs_no_call(
    tenant: Tenant, start_rapid: StartRapid, start_server: StartServer
) -> None:
    tenant.grant(**least(tenant, "rapid, for calls and asynchronous invocations"))

    rapid = start_rapid(ECHO, RAPID_FUNCTION_URL_AUTH_TYPE="NONE", **tenant.settings())
    server = start_server(AMQP_URI=tenant.uri)

    line = rapid.wait_for_log("the function's URL cannot be announced")
    assert filled_in(tenant, GRANT) in line
    assert "wanted=exchange.declare exchange='lambda.functions'" in line
    line = server.wait_for_log("function URLs are not known")
    assert filled_in(tenant, GRANT) in line
    assert server.invoke(tenant.function_name, b"1").body == b"1"


def dead(tenant: Tenant, *command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "lambda_server", "dead", *command, tenant.function_name]
    return run_to_end(words, AMQP_URI=tenant.uri)


def test_the_dead_letters_need_no_more_than_the_table_says(
    tenant: Tenant, start_rapid: StartRapid
) -> None:
    start_rapid(ECHO, **tenant.settings(as_guest=True)).stop()
    tenant.grant(**least(tenant, "`lambda-server dead`"))
    for _ in range(3):
        tenant.guest.publish(f"{tenant.function_name}.dead")

    for command in (["list"], ["show"], ["redrive"], ["purge", "--yes"]):
        done = dead(tenant, *command)
        assert done.returncode == 0, done.stderr
    tenant.guest.publish(f"{tenant.function_name}.dead")

    tenant.grant(read=NONE)
    refused = dead(tenant, "list")
    assert refused.returncode == 1
    assert "ACCESS_REFUSED" in refused.stderr
    assert filled_in(tenant, GRANT) in refused.stderr


def test_a_destination_that_may_not_be_written_to_costs_no_call(
    tenant: Tenant, start_rapid: StartRapid, chronicle: Chronicle
) -> None:
    guest = tenant.guest
    tenant.grant(**least(tenant, "rapid, for calls and asynchronous invocations"))
    guest.channel.exchange_declare("records", "fanout")
    settings: dict[str, Any] = {
        "RAPID_ON_FAILURE": "exchange:records/x",
        "RAPID_MAX_RETRY_ATTEMPTS": "0",
        "RAPID_MAX_CONCURRENCY": "2",
    }
    rapid = start_rapid(CHRONICLE, **settings, **chronicle.environ, **tenant.settings())
    in_flight = json.dumps(chronicle.held).encode()
    guest.publish(tenant.function_name, in_flight, BasicProperties(reply_to=guest.reply_to))
    chronicle.wait_for(1)

    assert rapid.invoke(b'{"fail": true}', X_Amz_Invocation_Type="Event").status == 202
    line = rapid.wait_for_log("RabbitMQ refuses a record")
    dead_letters = f"{tenant.function_name}.dead"
    wait_until(lambda: guest.waiting(dead_letters) == 1, "the dead letter")
    chronicle.open()

    assert "access to exchange 'records'" in line
    assert guest.next_reply().body == in_flight
    assert "broker not reached" not in "\n".join(rapid.log)


def test_a_reply_that_cannot_be_sent_is_sent_later_and_acknowledged_then(
    tenant: Tenant, start_rapid: StartRapid
) -> None:
    """The first reply to a node goes over a connection of its own, which RabbitMQ refuses here."""
    rapid = start_rapid(ECHO, **tenant.settings())
    with AmqpClient(tenant.guest_uri, direct=True) as caller:
        limit("user", "max-connections")(tenant)
        properties = BasicProperties(reply_to=caller.reply_to, correlation_id="1")

        caller.publish(tenant.function_name, b'"late"', properties)
        rapid.wait_for_log("reply not sent; trying again", count=2)

        assert unacknowledged(tenant) == 1
        tenant.node.ctl("clear_user_limits", tenant.user, "all")
        assert caller.next_reply().body == b'"late"'
        wait_until(lambda: unacknowledged(tenant) == 0, "the acknowledgement")


def unacknowledged(tenant: Tenant) -> int:
    """Return how many calls of the function are taken and not acknowledged."""
    columns = ("--silent", "name", "messages_unacknowledged")
    text = tenant.node.ctl("list_queues", "-p", tenant.vhost, *columns)
    counts = dict(line.split("\t") for line in text.splitlines())
    return int(counts[tenant.function_name])
