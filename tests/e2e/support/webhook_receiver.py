"""The webhook receiver as its clients see it."""

import http.client
import json
import socket

import pytest

from support.pipelines import SLOW_FACTOR
from support.processes import free_port
from support.waiting import eventually

TABLE = "pgtrickle.inbox_hooks"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def port():
    return free_port()


def set_receiver(db, port, name="hooks", options=None, **over):
    """A reverse pipeline from a receiver at `port` into the inbox `hooks`."""
    config = {"source": {"type": "webhook", "listen": f"127.0.0.1:{port}", **(options or {})},
              "sink": {"type": "inbox", "inbox_name": "hooks"}, **over}
    db.execute("select pgtrickle.set_relay_inbox(%s, config => %s::jsonb, enabled => true)",
               (name, json.dumps(config)))


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def wait_listening(port, relay):
    eventually(lambda: listens(port), 20 * SLOW_FACTOR, message=lambda: relay.log(40))


def send(port, body=b'{"n":1}', path="/inbox", headers=None, method="POST", tls=None, timeout=40):
    """(status, headers, parsed JSON body) of one request on a connection of its own."""
    if tls:
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls)
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        client.request(method, path, body=body, headers=JSON if headers is None else headers)
        response = client.getresponse()
        text = response.read()
        return response.status, dict(response.getheaders()), json.loads(text) if text else None
    finally:
        client.close()


def status(*arguments, **options):
    return send(*arguments, **options)[0]


def rows(db, columns="event_id", order="received_at, event_id"):
    if db.one("select to_regclass(%s)", (TABLE,)) is None:
        return []  # the first message makes it
    return db.execute(f"select {columns} from {TABLE} order by {order}")


def head(extra="", path="/inbox"):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()


def read_response(stream):
    line = stream.readline()
    length = 0
    while (header := stream.readline()) not in (b"\r\n", b""):
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    stream.read(length)
    return int(line.split()[1])
