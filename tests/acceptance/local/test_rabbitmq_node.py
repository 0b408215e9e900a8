from __future__ import annotations

from pathlib import Path

import pika
import pytest

from devtools.rabbitmq_node import RabbitmqError, RabbitmqNode
from tests.acceptance.local.conftest import left_running

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def test_a_node_keeps_port_and_messages_over_kill_and_start_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    with RabbitmqNode(tmp_path / "node") as node:
        uri = node.uri
        connection = pika.BlockingConnection(pika.URLParameters(uri))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True)
        channel.basic_publish("", "kept", b"x", pika.BasicProperties(delivery_mode=2))
        connection.close()

        node.kill()
        assert not node.is_running()
        node.start()

        assert node.uri == uri
        assert node.ctl("list_queues", "name", "messages").split() == [
            "name",
            "messages",
            "kept",
            "1",
        ]
    assert left_running(tmp_path) == []


def test_a_node_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    node = RabbitmqNode(tmp_path)
    (tmp_path / "data").write_text("a file where a folder has to be")

    with pytest.raises(RabbitmqError, match=r"the end of .*rabbitmq\.log"):
        node.start()

    assert node.is_stopped()
    assert left_running(tmp_path) == []
