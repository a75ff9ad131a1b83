"""A file of JSON lines: no server, so nothing of it can be killed but the relay that writes it."""

import json
import os

from support.processes import temporary_directory

from .base import Broker, Received

NO_SERVER = "there is no server"


class FileBroker(Broker):
    name = "file"
    has_headers = False   # a line is the envelope; its metadata has the id
    has_server = False
    max_body = 4_000_000
    na = {
        "broker_killed": NO_SERVER,
        "broker_frozen": NO_SERVER,
        "connection_cut": NO_SERVER,
        "back_pressure": "the tests of the sink stdout show it with a slow pipe",
        "authentication_refused": "there are no credentials",
        "wrong_ca": "there is no TLS",
        "unresolvable": "there is no host",
        "poison": "a file of JSON lines takes whatever a row can hold",
        "all_rejected": "a file of JSON lines takes whatever a row can hold",
    }
    source_na = {
        "broker_killed": NO_SERVER,
        "broker_frozen": NO_SERVER,
        "connection_cut": NO_SERVER,
        "authentication_refused": "there are no credentials",
        "wrong_ca": "there is no TLS",
        "unresolvable": "there is no host",
    }
    round_trip = {"id_from": "json:/metadata/id"}

    def __init__(self):
        super().__init__()
        self.directory = temporary_directory("conformance-file")
        self.path = None

    def start(self):
        return self

    def stop(self):
        pass

    def prepare(self):
        self.path = os.path.join(self.directory, self.place + ".jsonl")

    def sink(self, port=None, **over):
        return {"type": "file", "path": self.path, **over}

    def received(self):
        found = []
        try:
            with open(self.path, "rb") as lines:
                for line in lines:
                    try:
                        message = json.loads(line)
                    except ValueError:
                        continue  # torn by a kill: the relay writes the message again
                    identity = None
                    if isinstance(message, dict):
                        identity = message.get("id") or message.get("metadata", {}).get("id")
                    found.append(Received(identity, None, None, {}, line.rstrip(b"\n")))
        except FileNotFoundError:
            pass
        return found

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {"type": "file", "path": self.path, "id_from": "json:/id",
                "aggregate_id_from": "json:/key", **over}

    def publish(self, messages):
        """A line is an object with the body as one member; a body that is no JSON is a line."""
        lines = b""
        for identity, key, kind, body in messages:
            try:
                json.loads(body)
            except ValueError:
                lines += body + b"\n"
                continue
            head = json.dumps({"id": identity, "key": key, "event_type": kind}).encode()
            lines += head[:-1] + b', "payload": ' + body + b"}\n"
        with open(self.path, "ab") as out:
            out.write(lines)

    def body_of(self, payload):
        return payload["payload"]
