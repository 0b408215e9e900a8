from __future__ import annotations

import subprocess
import sys
import uuid

from lambda_protocol.invocation import new_request_id, new_trace_id

FORKED = """
import os
from lambda_protocol.invocation import new_request_id
new_request_id()
if os.fork() == 0:
    print(new_request_id(), flush=True)
    os._exit(0)
os.wait()
print(new_request_id())
"""


def test_request_ids_are_distinct_random_uuids() -> None:
    ids = [new_request_id() for _ in range(1000)]

    assert len(set(ids)) == len(ids)
    assert {(str(uuid.UUID(each)) == each, uuid.UUID(each).version) for each in ids} == {(True, 4)}
    assert len({new_trace_id() for _ in range(1000)}) == 1000


def test_a_forked_process_gives_other_ids_than_its_parent() -> None:
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)

    assert len(set(run.stdout.split())) == 2
