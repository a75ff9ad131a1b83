"""Amazon SQS, as ElasticMQ has it: FIFO queues, read with boto3."""

from support.http_server import HttpServer
from support.sqs_server import KEYS, REGION, Inbox, SqsServer
from support.tls import Authority

from .base import Received, ServerBroker


class SqsBroker(ServerBroker):
    """A place is a FIFO queue of a server that keeps its messages in memory, or, where it must outlive
    the server's end, of a second one that writes each message to its disk."""

    name = "sqs"
    deduplicates = True
    has_key = True
    slow_on_disk = True
    # ElasticMQ reads the slower the more groups it has seen, and deletes the slower the larger they are.
    large_load = {"message_group_id": "{{ bucket }}"}
    max_body = 250_000
    poison = "poison" + "x" * 100_000  # max_message_bytes is 100 KB until cure()
    refusal = ("too_large", "max_message_bytes")

    def __init__(self):
        super().__init__(SqsServer())
        self._fast, self._durable = self._server, None
        self._inboxes = {}
        self._url = None

    def stop(self):
        for server in filter(None, (self._fast, self._durable)):
            server.stop()

    def prepare(self):
        self._use(self._fast)
        self._server.faults()
        self._queue(".fifo")

    def prepare_unordered(self):
        self._queue("")

    def prepare_durable(self):
        if self._durable is None:
            self._durable = SqsServer(durable=True).start()
        self._use(self._durable)
        self._queue(".fifo")

    def _use(self, server):
        self._server, self.port = server, server.port

    def _queue(self, suffix):
        self._url = self._server.queue(f"{self.place}{suffix}", VisibilityTimeout=5)
        self._inboxes[self.place] = Inbox(self._server, self._url)

    # The sink ----------------------------------------------------------------------------------

    def _end(self, port):
        return {"type": "sqs", "queue_url": self._url, "region": REGION,
                "endpoint": f"http://127.0.0.1:{port or self._server.relay_port}",
                "timeout": "10s" if self._server is self._durable else "2s",
                "connect_timeout": "2s", **KEYS}

    def sink(self, port=None, **over):
        return {**self._end(port), **over}

    def received(self):
        messages = self._inboxes[self.place].read()
        if self._server is self._durable or not self._url.endswith(".fifo"):
            # The order in which it took them, which it tells of each: what it reads from its disk it
            # hands out by the millisecond, and a queue without order as it likes.
            messages = sorted(messages, key=_taken)
        return [Received(message["Attributes"].get("MessageDeduplicationId",
                                                   message["attributes"].get("pgtrickle-id")),
                         message["Attributes"].get("MessageGroupId"), None, message["attributes"],
                         message["Body"].encode())
                for message in messages]

    def count(self):
        return len(self._inboxes[self.place].messages) + self._server.count(self._url)

    def drain(self):
        self._inboxes[self.place].read()

    def refuse(self):
        return {"sink": {"max_message_bytes": 100_000}}

    def cure(self):
        return {"sink": {"max_message_bytes": 262_144}}

    def wrong_credentials(self):
        # The server checks none: what AWS would say is said for this key.
        self._server.faults({"contains": f"/{self.place}.fifo", "status": 403,
                             "code": "InvalidClientTokenId",
                             "unlessHeader": ["authorization", KEYS["access_key_id"]]})
        return self.sink(access_key_id="AKIAWRONG")

    def wrong_ca(self):
        if self._secured is None:
            self._secured = HttpServer(tls=Authority().certificate("server")).start()
        return self.sink(endpoint=self._secured.url(), tls_ca=Authority("other").ca)

    def unresolvable(self):
        return self.sink(endpoint="https://no-such-host.invalid")

    # The source --------------------------------------------------------------------------------

    def source(self, port=None, **over):
        return {**self._end(port), "wait": "1s", "visibility_timeout": "5s",
                "aggregate_id_from": "key", "event_type_from": "header:event-type", **over}

    def publish(self, messages):
        client = self._server.client()
        messages = list(messages)
        while messages:
            entries, size = [], 0
            while messages and len(entries) < 10:
                identity, key, kind, body = messages[0]
                if entries and size + len(body) > 200_000:
                    break
                size += len(body)
                texts = {"pgtrickle-id": identity, **({"event-type": kind} if kind else {})}
                entry = {"Id": str(len(entries)), "MessageBody": body.decode()}
                if self._url.endswith(".fifo"):
                    entry |= {"MessageGroupId": key or "none", "MessageDeduplicationId": identity}
                entries.append({**entry, "MessageAttributes": {
                    name: {"DataType": "String", "StringValue": text}
                    for name, text in texts.items()}})
                messages.pop(0)
            answer = client.send_message_batch(QueueUrl=self._url, Entries=entries)
            assert not answer.get("Failed"), answer

    def poison_payloads(self):
        return [b"{not json", "\u00fc no json either".encode()]  # SQS takes text only

    def unacknowledged(self):
        return self._server.count(self._url)


def _taken(message):
    """When the server took it: the millisecond, and a number that counts from each start anew (of
    queues with order)."""
    return tuple(int(message["Attributes"].get(name, 0))
                 for name in ("SentTimestamp", "SequenceNumber"))
