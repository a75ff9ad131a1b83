"""The Kafka sink, by the real binary against a real broker, read with confluent-kafka."""

import json
import pathlib
import re
import time

import confluent_kafka
import pytest

from support import checks
from support.kafka_fixtures import fresh_topic, shared_kafka, topic  # noqa: F401
from support.kafka_server import KafkaServer
from support.load import rows_written_through_a_stop
from support.pipelines import LONG, SLOW_FACTOR, insert_rows, new_rows, set_outbox
from support.postgres import REPOSITORY
from support.tls import Authority
from support.waiting import eventually
from support.writers import Writer, bulk, dead_letters, wait_trouble


def to_kafka(table, server, topic, sink=None, **options):
    sink = {"type": "kafka", "brokers": server.brokers, "topic": topic, **(sink or {})}
    return {"stream_table": table, "sink": sink, **options}


def rows(records):
    """The ids of all rows that arrived as new."""
    return [row["id"] for record in records if record.body is not None
            for row in new_rows(json.loads(record.body))]


def first_times(values):
    """Each value where it came first: what was sent again after a fault is left out."""
    return list(dict.fromkeys(values))


def wait_rows(reader, wanted, deadline=30, once=True):
    """Waits until these rows are in the topic, in this order; each once unless told otherwise."""
    wanted = list(wanted)
    eventually(lambda: len(set(rows(reader.messages()))) >= len(wanted), deadline * SLOW_FACTOR,
               interval=0.1, message=lambda: f"{reader.count()} records for {len(wanted)} rows")
    found = rows(reader.messages())
    assert (found if once else first_times(found)) == wanted


# What arrives ------------------------------------------------------------------------------


def test_key_headers_and_body_are_where_the_documentation_says(db, shared_kafka, relay, orders,
                                                              topic):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, message="row",
                                 headers={"source-system": "shop"}))
    with relay, shared_kafka.reader(topic) as reader:
        db.execute("insert into orders values (7, 'a', 1)")
        db.execute("truncate orders")
        eventually(lambda: reader.count() == 2)
        inserted, truncated = reader.messages()
    assert inserted.key == b"7"
    assert re.fullmatch(r"p:\d+-[0-9a-f]{8}:0\.[0-9a-f]{4}", inserted.id)
    body = json.loads(inserted.body)
    assert inserted.headers == {
        "pgtrickle-id": inserted.id, "pgtrickle-op": "insert", "pgtrickle-stream-table": "orders",
        "pgtrickle-outbox-id": str(body["sequence"]), "source-system": "shop"}
    assert body["new"]["id"] == 7
    assert truncated.headers["pgtrickle-full-refresh"] == "true"


def test_bodies_arrive_byte_for_byte(db, shared_kafka, relay, topic):
    db.execute("select pgtrickle.create_outbox('events')")
    set_outbox(db, "p", to_kafka("events", shared_kafka, topic))
    texts = ['{"n": 1234567890123456789012345678901234567890.12345678901234567890}',
             '{"t": "ü 𝄞 \\u2028 \\\\ \\" \\n \\t /"}', '[]', '"plain"', '0.10', 'null',
             json.dumps({"large": "x" * 900_000})]
    with relay, shared_kafka.reader(topic) as reader:
        for text in texts:
            db.execute("select pgtrickle.publish('events', %s::jsonb)", (text,))
        eventually(lambda: reader.count() == len(texts), 20 * SLOW_FACTOR)
        stored = [db.one("select %s::jsonb::text", (text,)).encode() for text in texts]
        assert [record.body for record in reader.messages()] == stored


def test_ten_thousand_messages_cross_batch_borders_in_order_of_their_keys(db, shared_kafka, relay,
                                                                         orders):
    topic = fresh_topic(shared_kafka, 4)
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, message="row", batch_size=700,
                                 key_template="{{ name }}"))
    with relay, shared_kafka.reader(topic) as reader:
        for first in range(1, 10_001, 500):
            db.execute("insert into orders select i, 'key ' || i %% 50, i"
                       " from generate_series(%s::bigint, %s::bigint) i", (first, first + 499))
        eventually(lambda: reader.count() >= 10_000, 60 * SLOW_FACTOR)
        # The topic has a message before its acknowledgement is there.
        eventually(lambda: relay.metric("messages_delivered_total", pipeline="p") == 10_000)
        records = reader.messages()
    by_key = {}
    for record in records:
        by_key.setdefault((record.key, record.partition), []).extend(rows([record]))
    assert len(by_key) == 50, "a key is in one partition"
    for (key, _), found in by_key.items():
        assert found == [i for i in range(1, 10_001) if f"key {i % 50}" == key.decode()]
    assert len({record.id for record in records}) == 10_000
    assert len({record.partition for record in records}) == 4


def test_a_topic_template_routes_and_illegal_characters_are_escaped_reversibly(db, shared_kafka,
                                                                              relay, orders):
    prefix = f"esc-{time.monotonic_ns()}"
    names = {"plain_Name-1.x": "plain_Name-1.x", "c d": "c.-20d", ".-": ".-2E-", "ü": ".-C3.-BC",
             "": ".-"}
    for escaped in names.values():
        shared_kafka.create_topic(f"{prefix}.{escaped}")
    set_outbox(db, "p", to_kafka("orders", shared_kafka, prefix + ".{{ name }}", message="row"))
    with relay:
        for identity, name in enumerate(names):
            db.execute("insert into orders values (%s, %s, 0)", (identity, name))
        for identity, escaped in enumerate(names.values()):
            with shared_kafka.reader(f"{prefix}.{escaped}") as reader:
                wait_rows(reader, [identity])


def test_the_key_of_a_compacted_topic_may_be_chosen_and_any_property_set(db, shared_kafka, relay,
                                                                        orders):
    topic = fresh_topic(shared_kafka, cleanup_policy="compact")
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, message="row",
                                 key_template="order-{{ id }}",
                                 sink={"compression": "zstd", "linger_ms": 0,
                                       "rdkafka": {"client.rack": "here", "batch.size": 2000}}))
    with relay, shared_kafka.reader(topic) as reader:
        insert_rows(db, "orders", 1, 3)
        wait_rows(reader, [1, 2, 3])
        assert [record.key for record in reader.messages()] == [b"order-1", b"order-2", b"order-3"]


@pytest.mark.parametrize("sink, pattern", [
    ({"rdkafka": {"no.such.property": "1"}}, "no.such.property"),
    ({"rdkafka": {"acks": "1"}}, "acks cannot be set there"),
    ({"transactional_id": "x"}, "without transactions"),
    ({"security_protocol": "TLS"}, "'TLS' is not known"),
    ({"tls_ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem cannot be read"),
    ({"sasl_username": "u", "security_protocol": "PLAINTEXT"}, "sasl_ options are set"),
])
def test_what_cannot_be_right_is_a_configuration_error(db, shared_kafka, relay, orders, sink,
                                                       pattern):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, "t", sink))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", pattern)
        assert relay.pipeline("p")["state"] == "misconfigured"


def test_a_topic_that_is_absent_is_an_error_with_the_remedy_and_is_waited_for(db, shared_kafka,
                                                                             relay, orders):
    topic = f"absent-{time.monotonic_ns()}"
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic))
    with relay:
        insert_rows(db, "orders", 1, 3)
        wait_trouble(relay, db, "p", topic, remedy="create the topic", deadline=30)
        assert relay.pipeline("p")["state"] == "misconfigured"
        shared_kafka.create_topic(topic)
        with shared_kafka.reader(topic) as reader:
            wait_rows(reader, [1, 2, 3], 60)
    assert dead_letters(db, "p") == []


def test_few_messages_do_not_wait_for_a_batch_to_fill(db, shared_kafka, relay, orders, topic):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, sink={"linger_ms": 5000}))
    with relay, shared_kafka.reader(topic) as reader:
        insert_rows(db, "orders", 1)
        wait_rows(reader, [1])
        began = time.monotonic()
        insert_rows(db, "orders", 2)
        wait_rows(reader, [1, 2])
        assert time.monotonic() - began < 2 * SLOW_FACTOR


def test_the_example_of_the_documentation_runs(db, shared_kafka, relay, orders):
    page = pathlib.Path(REPOSITORY, "docs/backends/kafka.md").read_text()
    shared_kafka.create_topic("orders")
    with relay, shared_kafka.reader("orders") as reader:
        db.execute(re.search(r"```sql\n(.*?)```", page, re.DOTALL)[1]
                   .replace("localhost:9092", shared_kafka.brokers))
        insert_rows(db, "orders", 1, 3)
        wait_rows(reader, [1, 2, 3])


# Faults ------------------------------------------------------------------------------------


def test_the_second_broker_of_the_list_serves(db, shared_kafka, relay, orders, topic):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic,
                                 {"brokers": f"127.0.0.1:1,{shared_kafka.brokers}"}))
    with relay, shared_kafka.reader(topic) as reader:
        insert_rows(db, "orders", 1)
        wait_rows(reader, [1])


def test_a_wrong_password_and_a_name_that_does_not_resolve_are_told_while_others_run(
        db, shared_kafka, relay, orders, topic):
    server = KafkaServer(sasl=("relay", "right")).start()
    try:
        own = fresh_topic(server)
        good = {"sasl_username": "relay", "sasl_password": "right", "sasl_mechanism": "PLAIN"}
        set_outbox(db, "good", to_kafka("orders", server, own, good))
        set_outbox(db, "wrong", to_kafka("orders", server, own,
                                         good | {"sasl_password": "wr0ng-0ne-4"}))
        set_outbox(db, "no-host", to_kafka("orders", server, own,
                                           {"brokers": "no-such-host.invalid:9092"}))
        set_outbox(db, "other", to_kafka("orders", shared_kafka, topic))
        with relay, server.reader(own) as reader, shared_kafka.reader(topic) as other:
            insert_rows(db, "orders", 1)
            entry = wait_trouble(relay, db, "wrong", "(?i)authentication", remedy="sasl_password")
            assert entry["state"] == "misconfigured"
            wait_trouble(relay, db, "no-host", "no-such-host.invalid")
            wait_rows(reader, [1])
            wait_rows(other, [1])
            assert relay.pipeline("good")["last_error"] is None
            assert "wr0ng-0ne-4" not in relay.log()
    finally:
        server.stop()


def test_a_refused_scram_login_tells_when_the_library_is_too_old_for_kafka_4(db, relay, orders):
    server = KafkaServer(sasl=("relay", "pw"), properties={
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "listener.name.client.scram-sha-256.sasl.jaas.config":
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"}).start()
    try:
        set_outbox(db, "scram", to_kafka("orders", server, fresh_topic(server), {
            "sasl_username": "relay", "sasl_password": "no-such-user-2", "sasl_mechanism": "SCRAM-SHA-256"}))
        with relay:
            insert_rows(db, "orders", 1)
            entry = wait_trouble(relay, db, "scram", "SCRAM-SHA-256", remedy="sasl_password")
        assert entry["state"] == "misconfigured"
        outdated = confluent_kafka.libversion()[1] < 0x02060100
        assert entry["error_code"] == ("outdated_scram" if outdated else "authentication")
        assert ("librdkafka1 of Debian 13" in entry["remedy"]) == outdated
    finally:
        server.stop()


def test_tls_is_verified_and_a_wrong_authority_is_named_while_others_run(db, relay, orders):
    authority, other = Authority(), Authority("another CA")
    certificate, key = authority.certificate("server")
    server = KafkaServer(tls={"cert": certificate, "key": key}, sasl=("relay", "pw")).start()
    try:
        topic = fresh_topic(server)
        login = {"sasl_username": "relay", "sasl_password": "pw", "security_protocol": "SASL_SSL"}
        set_outbox(db, "trusted", to_kafka("orders", server, topic, login | {"tls_ca": authority.ca}))
        set_outbox(db, "wrong-ca", to_kafka("orders", server, topic, login | {"tls_ca": other.ca}))
        set_outbox(db, "no-ca", to_kafka("orders", server, topic, login))
        with relay, server.reader(topic) as reader:
            insert_rows(db, "orders", 1)
            for name in ("wrong-ca", "no-ca"):
                entry = wait_trouble(relay, db, name, "certificate .* not trusted", remedy="tls_ca")
                assert entry["state"] == "misconfigured"
            wait_rows(reader, [1])
            assert relay.pipeline("trusted")["last_error"] is None
    finally:
        server.stop()


def test_a_client_certificate_is_shown_where_the_broker_asks_for_one(db, relay, orders):
    authority = Authority()
    certificate, key = authority.certificate("server")
    own_certificate, own_key = authority.certificate("client")
    server = KafkaServer(tls={"cert": certificate, "key": key, "ca": authority.ca}).start()
    try:
        topic = fresh_topic(server)
        set_outbox(db, "p", to_kafka("orders", server, topic, {
            "tls_ca": authority.ca, "tls_cert": own_certificate, "tls_key": own_key}))
        set_outbox(db, "without", to_kafka("orders", server, topic, {"tls_ca": authority.ca}))
        relay.argv += ["--allow-secret", f"file:{own_key}"]
        with relay, server.reader(topic) as reader:
            insert_rows(db, "orders", 1)
            wait_rows(reader, [1])
            wait_trouble(relay, db, "without", server.brokers)
    finally:
        server.stop()


def test_a_user_who_may_not_write_is_told_so(db, relay, orders):
    server = KafkaServer(sasl=("relay", "pw"), acl=True).start()
    try:
        topic = fresh_topic(server)
        set_outbox(db, "p", to_kafka("orders", server, topic,
                                     {"sasl_username": "relay", "sasl_password": "pw"}))
        with relay:
            insert_rows(db, "orders", 1)
            wait_trouble(relay, db, "p", "(?i)authoriz", remedy="right")
            assert relay.pipeline("p")["state"] == "misconfigured"
    finally:
        server.stop()


# Poison ------------------------------------------------------------------------------------


def test_exactly_what_is_too_large_is_set_aside_and_can_be_sent_later(db, shared_kafka, relay,
                                                                     orders):
    topic = fresh_topic(shared_kafka, max_message_bytes=20_000, compression_type="uncompressed")
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, message="row",
                                 key_template="same", sink={"compression": "none"}))
    others = [i for i in range(1, 1001) if i != 500]
    with relay, shared_kafka.reader(topic) as reader:
        bulk(db, 1, 499, size=300)
        db.execute("insert into orders values (500, repeat('x', 30000), 6)")
        bulk(db, 501, 500, size=300)
        wait_rows(reader, others)
        eventually(lambda: len(dead_letters(db, "p")) == 1)
        (letter, code, message, payload), = dead_letters(db, "p")
        assert code == "too_large" and topic in message
        assert json.loads(payload)["new"]["id"] == 500
        shared_kafka.set_topic(topic, max_message_bytes=100_000)
        db.execute("select pgtrickle.relay_dlq_retry(%s)", (letter,))
        wait_rows(reader, others + [500])
        eventually(lambda: dead_letters(db, "p") == [])


def test_neighbours_of_a_poison_message_go_on_where_the_topics_limit_cannot_be_asked(db, relay,
                                                                                    orders):
    server = KafkaServer(sasl=("relay", "pw"), acl=True).start()
    try:
        topic = fresh_topic(server, max_message_bytes=20_000, compression_type="uncompressed")
        server.allow("relay", topic, "WRITE", "DESCRIBE")
        set_outbox(db, "p", to_kafka("orders", server, topic, message="row",
                                     sink={"sasl_username": "relay", "sasl_password": "pw",
                                           "compression": "none"}))
        with relay, server.reader(topic) as reader:
            bulk(db, 1, 499, size=300)
            db.execute("insert into orders values (500, repeat('x', 30000), 6)")
            bulk(db, 501, 500, size=300)
            wanted = {i for i in range(1, 1001) if i != 500}
            eventually(lambda: set(rows(reader.messages())) == wanted, 60 * SLOW_FACTOR)
            eventually(lambda: [letter[1] for letter in dead_letters(db, "p")] == ["too_large"])
    finally:
        server.stop()


def test_a_record_that_a_compacted_topic_refuses_is_set_aside_alone(db, shared_kafka, relay,
                                                                   orders):
    topic = fresh_topic(shared_kafka, cleanup_policy="compact")
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic, message="row",
                                 key_template="{{ name }}"))
    with relay, shared_kafka.reader(topic) as reader:
        db.execute("insert into orders select i, case when i <> 50 then 'k' else '' end, i"
                   " from generate_series(1, 100) i")
        wait_rows(reader, [i for i in range(1, 101) if i != 50])
        eventually(lambda: [letter[1] for letter in dead_letters(db, "p")] == ["invalid_record"])


def test_a_value_that_makes_no_legal_topic_is_set_aside(db, shared_kafka, relay, orders, topic):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, "{{ name }}", message="row"))
    with relay, shared_kafka.reader(topic) as reader:
        db.execute("insert into orders values (1, %s, 0), (2, %s, 0), (3, %s, 0)",
                   (topic, "x" * 250, topic))
        wait_rows(reader, [1, 3])
        eventually(lambda: [letter[1] for letter in dead_letters(db, "p")] == ["illegal_topic"])


# Load --------------------------------------------------------------------------------------


def test_a_changed_topic_takes_effect_while_rows_flow(db, shared_kafka, relay, orders):
    before, after = fresh_topic(shared_kafka), fresh_topic(shared_kafka)
    set_outbox(db, "p", to_kafka("orders", shared_kafka, before))
    with relay, shared_kafka.reader(before) as first, shared_kafka.reader(after) as second:
        with Writer(db) as writer:
            writer.wait(100)
            set_outbox(db, "p", to_kafka("orders", shared_kafka, after))
            eventually(lambda: second.count() > 0)
            writer.wait(writer.committed + 50)
        eventually(lambda: rows(second.messages())[-1] == writer.committed)
        assert rows(first.messages()) + rows(second.messages()) == list(
            range(1, writer.committed + 1))


def test_a_stop_under_load_is_clean_and_leaves_no_duplicate(db, shared_kafka, relay, orders, topic):
    set_outbox(db, "p", to_kafka("orders", shared_kafka, topic))
    written = rows_written_through_a_stop(db, relay)
    with shared_kafka.reader(topic) as reader:
        wait_rows(reader, written)
    relay.stop()


# Looking ----------------------------------------------------------------------------------------


def topics(server):
    return {name for name in server._admin.list_topics(timeout=10).topics
            if not name.startswith("__")}


def look(db, server, there):
    """What `check` says of pipelines around a topic that is there; they use no other one."""
    at = {"type": "kafka", "brokers": server.brokers}
    checks.forward(db, "there", at | {"topic": there})
    checks.forward(db, "named", at | {"topic": "absent"})
    checks.forward(db, "by_table", at)
    checks.forward(db, "illegal", at | {"topic": "no topic/name"})
    checks.forward(db, "template", at | {"topic": "t-{op}"})
    checks.reverse(db, "read", at | {"topic": there})
    checks.reverse(db, "unread", at | {"topic": ["absent", there], "group_id": "g"})
    checks.reverse(db, "pattern", at | {"topic": "^none.*"})
    topics_before = topics(server)
    code, told = checks.check(db)
    assert code == 3 and topics(server) == topics_before
    assert not {"absent", "orders"} & topics_before
    groups = {group.id for group in server._admin.list_groups(timeout=10)}
    assert not {"g", "pgtrickle-default-read", "pgtrickle-default-pattern"} & groups
    checks.the_problem(told, "illegal", "'no topic/name'", "correct the topic")
    checks.the_problem(
        told, "unread", "topic 'absent'",
        f"kafka-topics.sh --bootstrap-server {server.brokers} --create --topic absent")
    checks.no_problem(told, "there", "template", "read", "pattern")
    return told


@pytest.mark.parametrize("cluster_makes_topics", [False, True] if LONG else [False])
def test_check_names_topics_that_are_absent_and_makes_none(db, cluster_makes_topics, orders):
    # A cluster of its own: on the shared one, other tests have made the topic `orders`.
    server = KafkaServer(properties={
        "auto.create.topics.enable": str(cluster_makes_topics).lower()}).start()
    try:
        told = look(db, server, server.create_topic("there"))
        for pipeline, name in (("named", "absent"), ("by_table", "orders")):
            if cluster_makes_topics:
                assert any(f"'{name}' is made by the cluster" in note
                           for note in checks.notes(told, pipeline))
            else:
                checks.the_problem(told, pipeline, f"topic '{name}'", f"--create --topic {name}")
    finally:
        server.stop()
