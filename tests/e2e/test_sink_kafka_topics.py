"""Topics that the Kafka sink makes, the times of its records, and what it tells of its client."""

import time

from confluent_kafka.admin import ConfigResource

from support import checks
from support.bridges import set_bridge
from support.kafka_fixtures import fresh_topic, shared_kafka, topic  # noqa: F401
from support.kafka_server import KafkaServer
from support.pipelines import SLOW_FACTOR, insert_rows, set_outbox
from support.waiting import eventually
from support.writers import dead_letters, wait_trouble


def to_kafka(server, topic, sink=None, **options):
    return {"stream_table": "orders", "message": "row",
            "sink": {"type": "kafka", "brokers": server.brokers, "topic": topic, **(sink or {})},
            **options}


def new_name():
    return f"new-{time.monotonic_ns()}"


def partitions(server, name):
    return len(server._admin.list_topics(name, timeout=10).topics[name].partitions)


def setting(server, name, key):
    asked = ConfigResource(ConfigResource.Type.TOPIC, name)
    return server._admin.describe_configs([asked])[asked].result(20)[key].value


def wait_count(server, name, count):
    with server.reader(name) as reader:
        eventually(lambda: reader.count() == count, 60 * SLOW_FACTOR)
        return reader.messages()


# Topics that are made ----------------------------------------------------------------------


def test_topics_of_a_template_are_made_as_they_are_asked_for_and_others_left_alone(
        db, shared_kafka, relay, orders):
    prefix = new_name()
    shared_kafka.create_topic(f"{prefix}.old")
    set_outbox(db, "p", to_kafka(shared_kafka, prefix + ".{{ name }}", {
        "create_topics": True, "topic_partitions": 3, "topic_replication_factor": 1,
        "topic_config": {"cleanup.policy": "compact", "max.message.bytes": "123456"}}))
    with relay:
        for number, name in enumerate(["one", "old", "a b", "one"]):
            db.execute("insert into orders values (%s, %s, 0)", (number, name))
        for name, count in (("one", 2), ("a.-20b", 1), ("old", 1)):
            wait_count(shared_kafka, f"{prefix}.{name}", count)
    for name in ("one", "a.-20b"):
        assert partitions(shared_kafka, f"{prefix}.{name}") == 3
        assert setting(shared_kafka, f"{prefix}.{name}", "cleanup.policy") == "compact"
        assert setting(shared_kafka, f"{prefix}.{name}", "max.message.bytes") == "123456"
    assert partitions(shared_kafka, f"{prefix}.old") == 1
    assert setting(shared_kafka, f"{prefix}.old", "cleanup.policy") == "delete"
    assert dead_letters(db, "p") == []


def test_pipelines_that_make_the_same_topic_at_once_all_deliver(db, shared_kafka, relay, orders):
    name = new_name()
    for number in range(4):
        set_outbox(db, f"p{number}", to_kafka(shared_kafka, name, {"create_topics": True}))
    insert_rows(db, "orders", 1, 5)
    with relay:
        found = wait_count(shared_kafka, name, 20)
    assert len({record.id for record in found}) == 20


def test_a_topic_that_was_deleted_is_made_again(db, shared_kafka, relay, orders):
    name = new_name()
    set_outbox(db, "p", to_kafka(shared_kafka, name, {"create_topics": True}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_count(shared_kafka, name, 1)
        shared_kafka.delete_topic(name)
        insert_rows(db, "orders", 2)
        wait_count(shared_kafka, name, 1)


def test_a_name_that_no_topic_can_get_is_set_aside_alone(db, shared_kafka, relay, orders):
    prefix = f"new-{time.monotonic_ns()}"
    shared_kafka.create_topic(f"{prefix}_x.y")  # Kafka refuses a topic that differs in . and _ only
    set_outbox(db, "p", to_kafka(shared_kafka, prefix + "_{{ name }}", {"create_topics": True}))
    with relay:
        for number, name in enumerate(["x_y", "fine"]):
            db.execute("insert into orders values (%s, %s, 0)", (number, name))
        wait_count(shared_kafka, f"{prefix}_fine", 1)
        eventually(lambda: len(dead_letters(db, "p")) == 1, 20 * SLOW_FACTOR)


def test_a_wrong_configuration_of_new_topics_is_told(db, shared_kafka, relay, orders):
    for name, sink, remedy in (
            ("replicas", {"topic_replication_factor": 3}, "topic_replication_factor"),
            ("config", {"topic_config": {"no.such.setting": "1"}}, "topic_config")):
        set_outbox(db, name, to_kafka(shared_kafka, new_name(), sink | {"create_topics": True}))
    set_outbox(db, "off", to_kafka(shared_kafka, "t", {"topic_partitions": 3}))
    with relay:
        insert_rows(db, "orders", 1)
        for name, pattern, remedy in (("replicas", "does not make the topic", "topic_replication"),
                                      ("config", "no.such.setting", "topic_config"),
                                      ("off", "create_topics is not", "create_topics")):
            entry = wait_trouble(relay, db, name, pattern, remedy=remedy)
            assert entry["state"] == "misconfigured"


def test_a_user_who_may_not_make_topics_is_told_and_may_later(db, relay, orders):
    server = KafkaServer(sasl=("relay", "pw"), acl=True).start()
    try:
        name = new_name()
        server.allow("relay", name, "WRITE", "DESCRIBE")
        set_outbox(db, "p", to_kafka(server, name, {
            "create_topics": True, "sasl_username": "relay", "sasl_password": "pw"}))
        with relay:
            insert_rows(db, "orders", 1)
            entry = wait_trouble(relay, db, "p", name, remedy="right CREATE", deadline=30)
            assert entry["state"] == "misconfigured"
            server.allow("relay", name, "CREATE")
            wait_count(server, name, 1)
    finally:
        server.stop()


def test_check_says_that_the_relay_makes_a_topic_and_makes_none(db, shared_kafka, orders):
    name = new_name()
    checks.forward(db, "p", {"type": "kafka", "brokers": shared_kafka.brokers, "topic": name,
                             "create_topics": True})
    _, told = checks.check(db)
    assert any(f"'{name}' is made by the relay" in note for note in checks.notes(told, "p"))
    assert name not in shared_kafka._admin.list_topics(timeout=10).topics


# Times -------------------------------------------------------------------------------------


def test_a_records_time_is_that_of_the_change_not_of_its_sending(db, shared_kafka, relay, orders):
    names = [fresh_topic(shared_kafka) for _ in range(2)]
    for name, choice in zip(names, ("change", "send")):
        set_outbox(db, choice, to_kafka(shared_kafka, name, {"timestamp": choice}))
    insert_rows(db, "orders", 1, 3)
    written = [int(at) for (at,) in db.execute(
        "update pgtrickle.outbox_orders set created_at = created_at - interval '2 hours'"
        " returning floor(extract(epoch from created_at) * 1000)")]
    started = time.time() * 1000
    with relay:
        changed, sent = (wait_count(shared_kafka, name, 3) for name in names)
    assert sorted(record.timestamp for record in changed) == sorted(written)
    assert all(record.timestamp >= started - 1000 for record in sent)


def test_a_change_without_a_sensible_time_gets_that_of_its_sending(db, shared_kafka, relay, orders,
                                                                   topic):
    set_outbox(db, "p", to_kafka(shared_kafka, topic))
    insert_rows(db, "orders", 1, 2)
    db.execute("update pgtrickle.outbox_orders set created_at ="
               " case when id %% 2 = 0 then 'infinity' else '1901-01-01' end::timestamptz", ())
    started = time.time() * 1000
    with relay:
        found = wait_count(shared_kafka, topic, 2)
    assert all(abs(record.timestamp - started) < 600_000 for record in found)


# What the client tells ---------------------------------------------------------------------


def test_statistics_of_the_client_are_metrics_also_while_nothing_is_sent(db, shared_kafka, relay,
                                                                         orders, topic, tmp_path):
    fast = {"rdkafka": {"statistics.interval.ms": "200"}}
    set_outbox(db, "p", to_kafka(shared_kafka, topic, fast))
    set_bridge(db, "back", {"type": "kafka", "brokers": shared_kafka.brokers, "topic": topic,
                            "group_id": topic, **fast}, tmp_path / "lines")
    with relay:
        insert_rows(db, "orders", 1, 5)
        wait_count(shared_kafka, topic, 5)
        for name in ("p", "back"):
            # Both may know the broker by its name in the configuration, too.
            eventually(lambda: (relay.metric("kafka_connected_brokers", pipeline=name) or 0) >= 1, 30)
            eventually(lambda: (relay.metric("kafka_sent_bytes", pipeline=name) or 0) > 0, 30)
        eventually(lambda: relay.metric("kafka_queued_messages", pipeline="p") == 0, 30)
        before = relay.metric("kafka_sent_bytes", pipeline="back")
        eventually(lambda: relay.metric("kafka_sent_bytes", pipeline="back") > before, 30)
        assert relay.pipeline("p")["sink_report"]["state"] == "connected"
        shown = {line.split("{")[0] for line in relay.get("/metrics")[1].splitlines()
                 if line.startswith("pgtrickle_relay_kafka_") and 'pipeline="p"' in line}
        assert len(shown) == 11
