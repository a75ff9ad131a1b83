"""The SQS sink, by the real binary against ElasticMQ, which speaks the JSON protocol; read with
boto3."""

import json

import pytest

from support import aws_credentials
from support import checks
from support.http_server import HttpServer
from support.pipelines import SLOW_FACTOR, insert_rows, new_rows, set_outbox
from support.processes import temporary_directory
from support.relay import Relay
from support.sqs_fixtures import queue_name, server, sqs  # noqa: F401
from support.sqs_server import KEYS, REGION, Inbox
from support.tls import Authority
from support.waiting import eventually
from support.writers import Writer, bulk, dead_letters, wait_trouble


def to_sqs(server, url, table="orders", port=None, **options):
    sink = {"type": "sqs", "queue_url": url, "region": REGION, "timeout": "3s",
            "connect_timeout": "2s", "endpoint": f"http://127.0.0.1:{port or server.relay_port}", **KEYS,
            **options.pop("sink", {})}
    return {"stream_table": table, "sink": sink, **options}


def rows(inbox):
    return [row["id"] for message in inbox.read() for row in new_rows(json.loads(message["Body"]))]


def wait_rows(inbox, wanted, deadline=30):
    wanted = set(wanted)
    eventually(lambda: set(rows(inbox)) >= wanted, deadline * SLOW_FACTOR, interval=0.1,
               message=lambda: f"{len(inbox.messages)} messages of {len(wanted)} rows")
    return rows(inbox)


# What arrives ------------------------------------------------------------------------------


@pytest.mark.sanitizer
def test_a_message_carries_id_and_headers_as_attributes(db, sqs, relay, orders):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    set_outbox(db, "p", to_sqs(sqs, url, message="row", headers={"X-Source": "shop"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1.10)")
        wait_rows(inbox, [1])
    message, = inbox.messages
    attributes, body = message["attributes"], json.loads(message["Body"])
    assert attributes["pgtrickle-id"] == body["metadata"]["id"]
    assert attributes["pgtrickle-op"] == "insert"
    assert attributes["pgtrickle-stream-table"] == "orders"
    assert attributes["pgtrickle-outbox-id"] == str(body["sequence"])
    assert attributes["X-Source"] == "shop"
    assert '"amount": 1.10' in message["Body"]


def test_more_headers_than_attributes_travel_in_one(db, sqs, relay, orders):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    headers = {f"h{i}": f"ü{i}" for i in range(12)} | {"AWS.reserved": "r"}
    set_outbox(db, "p", to_sqs(sqs, url, message="row", headers=headers))
    with relay:
        insert_rows(db, "orders", 1)
        wait_rows(inbox, [1])
    attributes = inbox.messages[0]["attributes"]
    assert len(attributes) == 10
    others = json.loads(attributes.pop("pgtrickle-headers"))
    sent = {**attributes, **others}
    assert {key: sent[key] for key in headers} == headers


def test_a_fifo_queue_has_group_order_and_no_duplicates(db, sqs, relay, orders):
    url = sqs.queue(queue_name(".fifo"))
    inbox = Inbox(sqs, url)
    set_outbox(db, "p", to_sqs(sqs, url, message="row", key_template="{{ name }}",
                               retry_min="10ms", retry_max="100ms"))
    sqs.faults({"action": "SendMessageBatch", "failOne": True, "code": "InternalError",
                "times": 20}, {"action": "SendMessageBatch", "status": 503,
                               "code": "ServiceUnavailable", "times": 5})
    with relay:
        with Writer(db, keys=5) as writer:
            writer.wait(300)
        found = wait_rows(inbox, range(1, writer.committed + 1), 60)
    assert sorted(found) == list(range(1, writer.committed + 1))
    groups = {}
    for message in inbox.messages:
        attributes = message["Attributes"]
        groups.setdefault(attributes["MessageGroupId"], []).append(
            json.loads(message["Body"])["new"]["id"])
        assert attributes["MessageDeduplicationId"] == message["attributes"]["pgtrickle-id"]
    assert sorted(groups) == list("01234")
    assert all(ids == sorted(ids) for ids in groups.values())
    assert dead_letters(db, "p") == []


def test_the_group_may_be_a_template_and_long_ids_are_hashed(db, sqs, relay, orders):
    url = sqs.queue(queue_name(".fifo"))
    inbox = Inbox(sqs, url)
    set_outbox(db, "p", to_sqs(sqs, url, message="row", id_prefix="x" * 150,
                               sink={"message_group_id": "g-{{ name }}"}))
    with relay:
        db.execute("insert into orders values (1, 'a', 1), (2, 'with space', 1)")
        wait_rows(inbox, [1, 2])
    attributes = [message["Attributes"] for message in inbox.messages]
    groups = {entry["MessageGroupId"] for entry in attributes}
    assert "g-a" in groups and all(len(group) in (3, 64) for group in groups)
    assert all(len(entry["MessageDeduplicationId"]) == 64 for entry in attributes)


def test_bodies_arrive_byte_for_byte(db, sqs, relay):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    db.execute("select pgtrickle.create_outbox('events')")
    config = to_sqs(sqs, url)
    del config["stream_table"]
    set_outbox(db, "p", {**config, "outbox": "events"})
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 250_000})]
    with relay:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: len(inbox.read()) == len(texts), 20 * SLOW_FACTOR)
    stored = [db.one("select %s::jsonb::text", (text,)) for text in texts]
    assert sorted(message["Body"] for message in inbox.messages) == sorted(stored)


# Faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    {"failOne": True, "code": "InvalidMessageContents", "senderFault": True},
    {"status": 400, "code": "InvalidParameterValue", "message": "no poison"}])
def test_what_the_queue_refuses_is_set_aside_alone(db, sqs, relay, orders, fault):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    # failOne refuses the first entry, so the poison goes alone there: max one entry a request.
    sqs.faults({"action": "SendMessageBatch", "contains": "poison", **fault})
    set_outbox(db, "p", to_sqs(sqs, url, message="row",
                               key_template="one" if fault.get("failOne") else "{{ id }}"))
    db.execute("insert into orders select i, case when i = 37 then 'poison' else 'x' end, i"
               " from generate_series(1, 100) i")
    with relay:
        wait_rows(inbox, [i for i in range(1, 101) if i != 37])
        letters = eventually(lambda: dead_letters(db, "p"))
    assert [json.loads(payload)["new"]["id"] for *_, payload in letters] == [37]


@pytest.mark.parametrize("code, remedy", [
    ("QueueDoesNotExist", "queue_url"), ("AccessDenied", "sqs:SendMessage"),
    ("InvalidClientTokenId", "credentials"), ("SignatureDoesNotMatch", "clock")])
def test_what_is_no_messages_fault_stops_the_pipeline(db, sqs, relay, orders, code, remedy):
    url = sqs.queue(queue_name())
    sqs.faults({"action": "SendMessageBatch", "status": 400, "code": code})
    set_outbox(db, "p", to_sqs(sqs, url))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", code, remedy=remedy)
        assert relay.pipeline("p")["state"] == "misconfigured"
        assert KEYS["secret_access_key"] not in relay.log(10_000)
    assert dead_letters(db, "p") == []


def test_a_queue_that_is_absent_is_named(db, sqs, relay, orders):
    set_outbox(db, "p", to_sqs(sqs, f"{sqs.endpoint}/123456789012/absent"))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "queue absent", remedy="make the queue")


def test_throttling_is_waited_for(db, sqs, relay, orders):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    sqs.faults({"action": "SendMessageBatch", "status": 400, "code": "RequestThrottled",
                "times": 3}, {"action": "SendMessageBatch", "failOne": True, "code": "OverLimit",
                              "senderFault": True, "times": 3})
    set_outbox(db, "p", to_sqs(sqs, url, message="row", retry_min="10ms"))
    bulk(db, 1, 50)
    with relay:
        assert sorted(wait_rows(inbox, range(1, 51))) == list(range(1, 51))
    assert dead_letters(db, "p") == []


def test_expired_tokens_are_renewed(db, sqs, relay, orders):
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    sqs.faults({"action": "SendMessageBatch", "status": 403, "code": "ExpiredTokenException",
                "times": 2})
    set_outbox(db, "p", to_sqs(sqs, url, retry_min="10ms"))
    with relay:
        insert_rows(db, "orders", 1)
        assert wait_rows(inbox, [1]) == [1]


# Credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", aws_credentials.KINDS)
def test_credentials_come_from_the_whole_chain(db, sqs, relay_bin, orders, kind):
    service = aws_credentials.MetadataService()
    env, key = aws_credentials.environment(kind, service, temporary_directory("aws"))
    url = sqs.queue(queue_name())
    inbox = Inbox(sqs, url)
    config = to_sqs(sqs, url)
    for option in KEYS:
        del config["sink"][option]
    # A request whose Authorization names another key is refused.
    sqs.faults({"unlessHeader": ["authorization", f"Credential={key}"], "status": 403,
                "action": "SendMessageBatch", "code": "InvalidClientTokenId"})
    set_outbox(db, "p", config)
    try:
        with Relay(db.relay_dsn, env=env) as relay:
            insert_rows(db, "orders", 1)
            assert wait_rows(inbox, [1]) == [1]
            log = relay.log(10_000)
            assert "granted" not in log and "assumed" not in log
    finally:
        service.close()
    if kind == "instance":
        assert service.asked[0][:2] == ("PUT", "/latest/api/token")
        assert all(headers["X-aws-ec2-metadata-token"] == "metadata-token"
                   for method, _, headers, _ in service.asked if method == "GET")
        assert all(headers["User-Agent"].startswith("pgtrickle-relay/")
                   for _, _, headers, _ in service.asked)
    if kind == "container":
        assert service.asked[0][2]["Authorization"] == "container-token"
    if kind == "web identity":
        assert b"WebIdentityToken=identity-token" in service.asked[0][3]
    if kind == "role":
        assert "Credential=AKIABASE/" in service.asked[0][2]["Authorization"]


def test_no_credentials_at_all_are_told(db, sqs, relay_bin, orders):
    config = to_sqs(sqs, sqs.queue(queue_name()))
    for option in KEYS:
        del config["sink"][option]
    set_outbox(db, "p", config)
    env = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONFIG_FILE": "/nonexistent",
           "AWS_EC2_METADATA_DISABLED": "true"}
    with Relay(db.relay_dsn, env=env) as relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "no AWS credentials", remedy="AWS_ACCESS_KEY_ID")


def test_tls_is_verified(db, relay, orders):
    authority, other = Authority(), Authority("another CA")
    server = HttpServer(tls=authority.certificate("server")).start()
    try:
        url = server.url("/1/q")
        config = to_sqs(server, url, port=server.port,
                        sink={"endpoint": server.url(), "tls_ca": other.ca})
        set_outbox(db, "p", config)
        with relay:
            insert_rows(db, "orders", 1)
            wait_trouble(relay, db, "p", "certificate that is not trusted", remedy="tls_ca")
    finally:
        server.stop()


# Looking ----------------------------------------------------------------------------------------


def test_check_names_a_queue_that_is_absent_and_makes_none(db, sqs, orders):
    there = sqs.queue(queue_name())
    gone = there + "-gone"
    at = {"type": "sqs", "endpoint": sqs.endpoint, "access_key_id": "a", "secret_access_key": "b"}
    checks.forward(db, "there", at | {"queue_url": there})
    checks.forward(db, "gone", at | {"queue_url": gone})
    checks.reverse(db, "read", at | {"queue_url": there})
    checks.reverse(db, "read_gone", at | {"queue_url": gone})
    code, told = checks.check(db)
    assert code == 3
    name = gone.rsplit("/", 1)[1]
    for pipeline in ("gone", "read_gone"):
        checks.the_problem(told, pipeline, name, f"aws sqs create-queue --queue-name {name};")
    checks.no_problem(told, "there", "read")
    assert sqs.client().list_queues(QueueNamePrefix=name).get("QueueUrls", []) == []
