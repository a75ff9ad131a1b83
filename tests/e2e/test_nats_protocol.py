"""What NATS operators configure: headers of the protocol, domains, prefixes, and limits of streams."""

import json
import re

import pytest

from support.nats_server import NatsServer
from support.pipelines import insert_rows, set_outbox, status_row, to_nats, wait_settled
from support.processes import free_port
from support.relay import run_command
from support.waiting import eventually
from support.writers import wait_trouble


def set_aside(db):
    """The dead letters of all pipelines."""
    return db.execute("select pipeline, error_code, error_message from pgtrickle.relay_dlq")


def set_bridge(db, name, source, sink, **options):
    db.execute("select pgtrickle.set_relay(%s, config => %s::jsonb)", (name, json.dumps(
        {"source": source, "sink": sink, **options})))
    db.execute("select pgtrickle.enable_relay(%s)", (name,))


# Headers of the protocol --------------------------------------------------------------------


def test_a_bridge_drops_the_protocol_headers_of_its_source(db, nats, relay):
    with nats.client() as client:
        client.create_stream("from", "from.>", allow_rollup_hdrs=True)
        client.create_stream("to", "to.>", allow_rollup_hdrs=True)
        client.publish_acknowledged("from.a", b'{"n": 1}', {
            "Nats-Msg-Id": "first", "Nats-Expected-Stream": "from",
            "Nats-Expected-Last-Sequence": "0", "trace": "t1"})
        client.publish_acknowledged("from.b", b'{"n": 2}', {"nats-rollup": "sub", "trace": "t2"})
        set_bridge(db, "bridge", {"type": "nats", "url": nats.url, "stream": "from"},
                   {"type": "nats", "url": nats.url, "stream": "to", "subject": "to.all"})
        with relay:
            eventually(lambda: client.count("to") == 2,
                       message=lambda: f"{status_row(db, 'bridge')} {set_aside(db)}")
        sent = client.messages("to")
    assert [json.loads(message.data)["n"] for message in sent] == [1, 2]
    for message in sent:
        protocol = {name.lower() for name in message.headers if name.lower().startswith("nats-")}
        assert protocol == {"nats-msg-id", "nats-expected-stream"}
        assert message.headers["Nats-Expected-Stream"] == "to"
    assert [message.headers["trace"] for message in sent] == ["t1", "t2"]
    assert not set_aside(db)


@pytest.mark.parametrize("name", ["Nats-Expected-Last-Sequence", "nats-msg-id", "NATS-Marker-Reason"])
def test_a_configured_header_of_the_protocol_is_refused(db, nats, relay, orders, name):
    set_outbox(db, "p", to_nats("orders", nats, headers={name: "1"}))
    with relay:
        trouble = wait_trouble(relay, db, "p", f'"{name}" belongs to the protocol',
                               "Nats-TTL and Nats-Rollup can be set")
    assert trouble["state"] == "misconfigured"
    checked = run_command("check", "--postgres-url", db.dsn)
    assert f'"{name}" belongs to the protocol' in checked.stdout, checked.stdout


def test_a_configured_rollup_keeps_the_newest_message_of_a_subject(db, nats, relay, orders):
    set_outbox(db, "p", to_nats("orders", nats, "rolled.{{ id }}", message="row",
                                headers={"Nats-Rollup": "sub"}))
    with nats.client() as client, relay:
        for amount in (1, 2, 3):
            db.execute("insert into orders values (1, 'a', %s) on conflict (id) "
                       "do update set amount = excluded.amount", (amount,))
        wait_settled(db, "p", "orders")
        assert [message.json["new"]["amount"] for message in client.messages("rolled")] == [3]
    assert not set_aside(db)


def test_a_stream_without_rollup_stops_the_pipeline_and_sets_nothing_aside(db, nats, relay, orders):
    with nats.client() as client, relay:
        client.create_stream("plain", "plain.>")
        set_outbox(db, "p", to_nats("orders", nats, "plain.x", headers={"Nats-Rollup": "sub"}))
        insert_rows(db, "orders", 1, 3)
        assert wait_trouble(relay, db, "p", "rollup", "--allow-rollup")["state"] == "misconfigured"
        assert not set_aside(db)
        client.update_stream("plain", allow_rollup_hdrs=True)
        eventually(lambda: client.count("plain") >= 1, 60)
    assert not set_aside(db)


# Domains and prefixes -----------------------------------------------------------------------


@pytest.fixture
def leaf_and_hub():
    """A server with JetStream in the domain `leaf`, and the hub that it is connected to."""
    leafs = free_port()
    hub = NatsServer(domain="hub", extra=f'leafnodes {{ listen: "127.0.0.1:{leafs}" }}').start()
    leaf = NatsServer(domain="leaf", extra="leafnodes { remotes: [ "
                      f'{{ url: "nats://127.0.0.1:{leafs}" }} ] }}').start()
    yield leaf, hub
    leaf.stop()
    hub.stop()


def test_a_stream_of_another_domain_is_written_and_read(db, leaf_and_hub, relay, orders):
    leaf, hub = leaf_and_hub
    with leaf.client() as client, relay:
        client.create_stream("far", "far.>")
        eventually(lambda: hub.has_leaf(), 30)
        set_outbox(db, "out", to_nats("orders", hub, "far.orders",
                                      sink={"stream": "far", "domain": "leaf"}))
        insert_rows(db, "orders", 1, 5)
        eventually(lambda: client.count("far") == 5,
                   message=lambda: f"{status_row(db, 'out')} {set_aside(db)}")
        db.execute("select pgtrickle.create_inbox('far')")
        db.execute("select pgtrickle.set_relay_inbox('in', config => %s::jsonb)", (json.dumps(
            {"source": {"type": "nats", "url": hub.url, "stream": "far", "domain": "leaf"},
             "sink": {"type": "inbox", "inbox_name": "far"}}),))
        db.execute("select pgtrickle.enable_relay('in')")
        eventually(lambda: db.one("select count(*) from pgtrickle.inbox_far") == 5,
                   message=lambda: str(status_row(db, "in")))
        eventually(lambda: (status_row(db, "in") or {}).get("lag") == 0)
    assert not set_aside(db)


@pytest.mark.parametrize("options, problem", [
    ({"domain": "a", "api_prefix": "b"}, "both domain and api_prefix are set"),
    ({"api_prefix": "$JS.API."}, "api_prefix: '$JS.API.': it ends in a dot"),
    ({"inbox_prefix": "_INBOX.>"}, "inbox_prefix: '_INBOX.>': it contains a wildcard"),
    ({"domain": "a.b"}, "domain: 'a.b' cannot be the name of one"),
    ({"stream_max_age": "10s", "stream_duplicate_window": "1m"},
     "stream_duplicate_window is longer than stream_max_age")])
def test_places_that_cannot_be_are_refused(db, nats, relay, orders, options, problem):
    set_outbox(db, "p", to_nats("orders", nats, sink=options))
    with relay:
        assert wait_trouble(relay, db, "p", re.escape(problem))["state"] == "misconfigured"


def test_answers_come_below_the_prefix_that_permissions_name(db, relay, orders):
    """The user may subscribe to nothing else, in both directions."""
    allowed = 'publish: ">", subscribe: ["_RELAY.>", "$JS.EVENT.ADVISORY.>"]'
    server = NatsServer(extra="authorization { users: [ "
                        f'{{ user: relay, password: secret, permissions: {{ {allowed} }} }}, '
                        "{ user: admin, password: secret } ] }")
    server.user, server.password = "admin", "secret"
    server.start()
    login = {"user": "relay", "password": "secret", "inbox_prefix": "_RELAY"}
    try:
        with server.client() as client, relay:
            set_outbox(db, "out", to_nats("orders", server, "orders.{op}", sink=login))
            insert_rows(db, "orders", 1, 3)
            eventually(lambda: client.count("orders") == 3,
                       message=lambda: str(status_row(db, "out")))
            db.execute("select pgtrickle.create_inbox('answers')")
            set_bridge(db, "in", {"type": "nats", "url": server.url, "stream": "orders", **login},
                       {"type": "inbox", "inbox_name": "answers"})
            eventually(lambda: db.one("select count(*) from pgtrickle.inbox_answers") == 3,
                       message=lambda: str(status_row(db, "in")))
    finally:
        server.stop()


# Streams that the relay makes, and subjects --------------------------------------------------


def test_a_stream_that_is_made_has_the_configured_limits(db, nats, relay, orders):
    set_outbox(db, "p", to_nats("orders", nats, "limited.{op}", sink={
        "stream_max_age": "2h", "stream_max_bytes": "1MiB", "stream_max_messages": 500,
        "stream_duplicate_window": "10m"}))
    with nats.client() as client, relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: client.count("limited") == 1, message=lambda: str(status_row(db, "p")))
        config = client.stream_info("limited")["config"]
    assert config["max_age"] == 2 * 3600 * 10**9 and config["max_bytes"] == 1 << 20
    assert config["max_msgs"] == 500 and config["duplicate_window"] == 600 * 10**9
    assert config["num_replicas"] == 1 and not config["allow_rollup_hdrs"]


def test_replicas_that_the_server_cannot_have_are_told(db, nats, relay, orders):
    set_outbox(db, "p", to_nats("orders", nats, "copies.x", sink={"stream_replicas": 3}))
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", "replicas")


def test_dots_of_values_become_levels_where_that_is_asked_for(db, nats, relay):
    db.execute("select pgtrickle.create_outbox('events')")
    for name, dots in (("escaped", "escape"), ("levels", "levels")):
        set_outbox(db, name, {"outbox": "events", "sink": {
            "type": "nats", "url": nats.url, "subject_dots": dots,
            "subject_template": name + ".{event_type}.x"}})
    types = ["order.created", "plain", ".a..b.", "a b.c*"]
    with nats.client() as client, relay:
        for kind in types:
            db.execute("select pgtrickle.publish('events', '{}', event_type => %s)", (kind,))
        eventually(lambda: client.count("escaped") == len(types) == client.count("levels"),
                   message=lambda: f"{status_row(db, 'levels')} {set_aside(db)}")
        assert [message.subject for message in client.messages("escaped")] == [
            "escaped.order%2Ecreated.x", "escaped.plain.x", "escaped.%2Ea%2E%2Eb%2E.x",
            "escaped.a%20b%2Ec%2A.x"]
        assert [message.subject for message in client.messages("levels")] == [
            "levels.order.created.x", "levels.plain.x", "levels.%.a.%.b.%.x", "levels.a%20b.c%2A.x"]
