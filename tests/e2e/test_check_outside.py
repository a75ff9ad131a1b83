"""`pgtrickle-relay check` looks at what is outside the database, and changes nothing by looking.

The pipelines of one server share a database, so that one run of `check` looks at all of them. Kafka,
RabbitMQ and SQS are looked at beside the tests of their sinks, which have such a server.
"""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

from support.checks import check, forward, no_problem, notes, problems, reverse, the_problem, warnings
from support.fixtures import need
from support.http_server import HttpServer
from support.pipelines import set_outbox, to_file
from support.redis_server import RedisServer
from support.relay import run_command

pytestmark = pytest.mark.usefixtures("relay_bin")

# Brokers ----------------------------------------------------------------------------------------


def test_nats(db, nats, orders):
    at = {"type": "nats", "url": nats.url}
    with nats.client() as client:
        client.create_stream("SALES", ["sales.>"])
        client._api("CONSUMER.DURABLE.CREATE.SALES.pushes", {"stream_name": "SALES", "config": {
            "durable_name": "pushes", "deliver_subject": "to.me", "ack_policy": "explicit"}})
    forward(db, "named", at | {"stream": "ABSENT", "create_stream": False, "subject": "sales.x"})
    forward(db, "unnamed", at | {"create_stream": False, "subject": "nowhere"})
    forward(db, "by_table", at)
    forward(db, "other", at | {"stream": "SALES", "subject": "returns.x"})
    forward(db, "taken", at | {"create_stream": False, "subject": "sales.{stream_table}"})
    forward(db, "template", at | {"create_stream": False, "subject": "no.{op}"})
    forward(db, "made", at | {"stream": "FRESH", "subject": "fresh.x", "create_stream": True})
    reverse(db, "no_stream", at | {"stream": "GONE"})
    reverse(db, "pushed", at | {"stream": "SALES", "consumer": "pushes"})
    reverse(db, "new", at | {"stream": "SALES", "consumer": "new"})
    code, told = check(db)
    assert code == 3
    the_problem(told, "named", "no stream 'ABSENT'", "nats stream add ABSENT")
    the_problem(told, "unnamed", "no JetStream stream takes the subject 'nowhere'",
                "nats stream add nowhere")
    the_problem(told, "by_table", "takes the subject 'orders'", "nats stream add")
    the_problem(told, "other", "the stream 'SALES'", "nats stream edit SALES")
    the_problem(told, "no_stream", "no stream 'GONE'", "nats stream add GONE")
    the_problem(told, "pushed", "pushes its messages", "another consumer")
    no_problem(told, "taken", "template", "made", "new")
    assert any("'FRESH' is made by the relay" in note for note in notes(told, "made"))
    assert any("'new' of the stream 'SALES' is made" in note for note in notes(told, "new"))
    with nats.client() as client:
        assert client._api("STREAM.NAMES")["streams"] == ["SALES"]
        assert client._api("CONSUMER.NAMES.SALES")["consumers"] == ["pushes"]
        assert client.count("SALES") == 0


def test_redis(db, orders):
    need(shutil.which("redis-server"), "redis-server")
    with_redis = RedisServer().start()
    try:
        at = {"type": "redis", "url": with_redis.url}
        client = with_redis.client()
        client.set("text", "no stream")
        client.xadd("there", {"payload": "{}"})
        forward(db, "text", at | {"stream_key": "text"})
        forward(db, "there", at | {"stream_key": "there"})
        forward(db, "new", at | {"stream_key": "new"})
        reverse(db, "read_text", at | {"stream_key": "text"})
        reverse(db, "read_there", at | {"stream_key": "there", "group": "g"})
        reverse(db, "read_new", at | {"stream_key": "new2"})
        before = sorted(client.keys())
        code, told = check(db)
        assert code == 3
        the_problem(told, "text", "holds a string, and no stream", "RENAME text")
        the_problem(told, "read_text", "holds a string, and no stream", "stream_key")
        no_problem(told, "there", "new", "read_there", "read_new")
        assert any("'g' of the stream 'there' is made" in n for n in notes(told, "read_there"))
        assert any("'new2', which is not there" in note for note in notes(told, "read_new"))
        assert sorted(client.keys()) == before and client.xinfo_groups("there") == []
    finally:
        with_redis.stop()


def test_webhooks(db, orders):
    http = HttpServer().start()
    try:
        rules = []
        for status in (200, 401, 403, 404, 405, 410, 500, 501):
            forward(db, f"to{status}", {"type": "webhook", "url": http.url(f"/{status}"),
                                        "request_headers": {"X-Shop": "one"},
                                        "allow_private": True,
                                        "bearer_token": "secret-token"})
            rules.append({"path": f"/{status}", "status": status})
        forward(db, "by_row", {"type": "webhook", "url": http.url("/404/{{ id }}"),
                               "allow_private": True})
        http.rules(*rules)
        code, told = check(db)
        assert code == 3
        for status in (401, 403, 404, 410):
            the_problem(told, f"to{status}", f"answered {status} to HEAD", "look at")
        no_problem(told, "to200", "to405", "to500", "to501", "by_row")
        asked = http.requests()
        assert {request.method for request in asked} == {"HEAD", "OPTIONS"}
        assert all(request.body == b"" and request.headers["x-shop"] == "one"
                   and request.headers["authorization"] == "Bearer secret-token"
                   for request in asked)
        http.stop()
        code, told = check(db)
        assert code == 1 and problems(told, "to200")
    finally:
        http.stop()


# PostgreSQL and files ---------------------------------------------------------------------------


def test_other_databases(db, there, empty_db, orders):
    there.execute("create table public.plain (event_id text primary key, payload jsonb);"
                  "grant usage on schema public to relay_daemon;"
                  "grant select, insert on public.plain to relay_daemon;")
    at = {"type": "pg-inbox", "url": there.relay_dsn}
    forward(db, "no_table", at | {"url": empty_db.dsn, "inbox_table": "public.gone"})
    forward(db, "table", at | {"inbox_table": "public.plain"})
    forward(db, "made", at | {"inbox_name": "mail"})
    reverse(db, "no_outbox", {"type": "pg-outbox", "url": there.relay_dsn, "outbox": "gone"})
    reverse(db, "no_source", {"type": "pg-outbox", "url": there.relay_dsn, "table": "public.gone",
                              "id_column": "id", "payload_column": "payload"})
    code, told = check(db)
    assert code == 3
    the_problem(told, "no_table", "has no table public.gone", "pgtrickle-relay init")
    the_problem(told, "no_outbox", 'no outbox "gone"', "SELECT pgtrickle.enable_outbox('gone')")
    the_problem(told, "no_source", "public.gone", "")
    no_problem(told, "table", "made")
    assert any("mail is made by the relay" in note for note in notes(told, "made"))
    assert there.execute("select * from pgtrickle.pgt_inbox_config") == []
    assert there.execute("select * from pgtrickle.relay_consumer_offsets") == []
    assert db.execute("select * from pgtrickle.pgt_inbox_config") == []


def test_files_and_addresses(db, orders, tmp_path):
    (tmp_path / "there").write_text("")
    forward(db, "no_folder", {"type": "file", "path": str(tmp_path / "gone" / "rows.jsonl")})
    forward(db, "folder", {"type": "file", "path": str(tmp_path)})
    forward(db, "fresh", {"type": "file", "path": str(tmp_path / "fresh")})
    reverse(db, "waits", {"type": "file", "path": str(tmp_path / "gone")})
    reverse(db, "ends", {"type": "file", "path": str(tmp_path / "gone"), "follow": False,
                         "position_file": str(tmp_path / "there2" / "position")})
    reverse(db, "address", {"type": "webhook", "listen": "192.0.2.1:8080", "auth": "none"})
    before = sorted(os.listdir(tmp_path))
    code, told = check(db)
    assert code == 3
    the_problem(told, "no_folder", str(tmp_path / "gone"), f"mkdir -p {tmp_path / 'gone'}")
    the_problem(told, "folder", "Is a directory", "")
    the_problem(told, "address", "cannot listen on 192.0.2.1:8080", "another address")
    assert len(problems(told, "ends")) == 2, told["ends"]
    no_problem(told, "fresh", "waits")
    assert sorted(os.listdir(tmp_path)) == before


def test_what_a_disabled_pipeline_lacks_is_a_warning(db, orders, tmp_path):
    set_outbox(db, "off", to_file("orders", tmp_path / "gone" / "rows.jsonl"), enable=False)
    code, told = check(db)
    assert code == 0 and not problems(told, "off")
    assert any("No such file" in message for message, _ in warnings(told, "off"))


# Two pipelines on one ---------------------------------------------------------------------------


TAKEN = {
    "nats": ({"type": "nats", "stream": "s", "consumer": "c", "url": "nats://127.0.0.1:1"},
             "problem", "the consumer 'c' of the stream 's'"),
    "kafka": ({"type": "kafka", "topic": ["a", "b"], "group_id": "g", "brokers": "127.0.0.1:1",
               "connect_timeout": "1s"},
              "problem", "the group 'g' on the topic"),
    "redis": ({"type": "redis", "stream_key": "s", "group": "g", "url": "redis://127.0.0.1:1"},
              "problem", "of the group 'g' of the stream 's'"),
    "webhook": ({"type": "webhook", "listen": "127.0.0.1:18080", "auth": "none"}, "problem",
                "the port 18080"),
    "file": ({"type": "file", "path": "/tmp/x", "position_file": "/tmp/x.position"}, "problem",
             "the position file /tmp/x.position"),
    "stdin": ({"type": "stdin"}, "problem", "standard input"),
    "rabbitmq": ({"type": "rabbitmq", "queue": "q", "url": "amqp://127.0.0.1:1"}, "warning",
                 "the queue 'q'"),
    "sqs": ({"type": "sqs", "queue_url": "http://127.0.0.1:1/0/q", "region": "eu-west-1",
             "access_key_id": "a", "secret_access_key": "b"}, "warning", "the SQS queue 'q'"),
}


def test_two_pipelines_that_take_from_each_other(db, orders, tmp_path):
    """The first one is in SQL, the second in a file."""
    file = tmp_path / "relay.toml"
    text = ""
    other = {"type": "pg-inbox", "inbox_name": "other"}
    for name, (source, _, _) in TAKEN.items():
        reverse(db, f"{name}-1", source)
        reverse(db, f"{name}-2", source)
        text += (f'[[pipeline]]\nname = "{name}-file"\nsource = {toml(source)}\n'
                 f'sink = {toml(other)}\n')
    reverse(db, "redis-4", TAKEN["redis"][0] | {"consumer": "own"}, other)
    reverse(db, "redis-5", TAKEN["redis"][0] | {"group": "own"}, other)
    reverse(db, "nats-off", TAKEN["nats"][0], enable=False)
    path = tmp_path / "rows.jsonl"
    set_outbox(db, "out-1", to_file("orders", path))
    set_outbox(db, "out-2", to_file("orders", f"{tmp_path}/./rows.jsonl"))
    file.write_text(text)
    code, told = check(db, "--config", file)
    assert code == 3

    def about(pipeline, wanted):
        return [kind for kind, message, _ in told[pipeline]
                if message.startswith("it and the pipeline") and wanted in message]

    for name, (_, kind, what) in TAKEN.items():
        assert kind in about(f"{name}-1", what), (name, told[f"{name}-1"])
        # Two members that serve one sink share its work, where that is possible at all.
        assert about(f"{name}-2", f"pipeline {name}-1 use") == (
            [] if kind == "warning" else [kind]), (name, told[f"{name}-2"])
    assert "warning" in about("redis-4", "the group 'g' of the stream 's'")
    assert "problem" not in about("redis-4", "use")
    assert about("redis-5", "use") == [] and about("nats-off", "use") == []
    assert about("out-2", f"the file {path}") == ["problem"]


def toml(value):
    """A value as TOML has it, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


# Files of configuration -------------------------------------------------------------------------

MISTAKES = """[global]
metrics_adr = "127.0.0.1:0"
log_level = "lout"
pool_size = 0

[[pipeline]]
name = "one"
source = { type = "outbox", stream_tabel = "orders" }
sink = { type = "natss", url = "nats://localhost" }

[[pipeline]]
name = "two"
batch_sise = 5
source = { type = "outbox", stream_table = "orders" }
sink = { type = "kafka", broker = "localhost:9092" }

[[pipeline]]
name = "three"
source = { type = "nats", stream = "a b" }
sink = { type = "webhook", url = "no address" }

[[pipelines]]
name = "four"
"""

EXPECTED = [
    # (pipeline, place, words, remedy)
    ("", "relay.toml:2:", '"metrics_adr"', "metrics_addr"),
    ("", "relay.toml:3:", "log_level", "one of"),
    ("", "relay.toml:4:", "pool_size", ""),
    ("one", "relay.toml:8:", '"stream_tabel"', '"stream_table"'),
    ("one", "", "'natss'", "'nats'"),
    ("two", "relay.toml:13:", '"batch_sise"', '"batch_size"'),
    ("two", "relay.toml:15:", '"broker"', '"brokers"'),
    ("three", "relay.toml:17:", "'a b'", "no spaces"),
    ("three", "relay.toml:17:", "", "http"),
    ("", "relay.toml:22:", '"pipelines"', '"pipeline"'),
]


def test_all_mistakes_of_a_file_are_told_at_once(db, tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text(MISTAKES)
    code, told = check(db, "--config", file)
    assert code == 3
    for pipeline, place, words, remedy in EXPECTED:
        assert any(place in message and words in message and remedy in f"{message} {hint}"
                   for message, hint in problems(told, pipeline)), (pipeline, place, words, told)
    done = run_command("run", "--config", file, "--postgres-url", db.relay_dsn)
    assert done.returncode == 3
    for pipeline, place, words, remedy in EXPECTED:
        assert place in done.stderr and words in done.stderr and remedy in done.stderr
    everything = [each for found in told for each in problems(told, found)]
    assert len(everything) == len(set(everything)), "something is told twice"


def test_a_mistake_of_syntax_is_told_with_its_place(db, tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text('[global]\nlog_level = "info"\n\n[[pipeline]]\nname = "a\n')
    code, told = check(db, "--config", file)
    assert code == 3
    the_problem(told, "", f"{file}:5:10", "Correct the file")
    done = run_command("run", "--config", file, "--postgres-url", db.relay_dsn)
    assert done.returncode == 3 and f"{file}:5:10" in done.stderr


# Hostile and mixed ------------------------------------------------------------------------------


def test_a_remedy_is_no_trap_for_the_operator_who_copies_it(db, nats, orders, tmp_path):
    """Names are of those who configure pipelines; the command is run by the operator."""
    name = "x'; touch trap; '"
    made = tmp_path / "it's here" / "$(touch trap)"
    forward(db, "sink", {"type": "nats", "url": nats.url, "create_stream": False,
                         "subject": "x';$(touch);`trap`'"})
    forward(db, "file", {"type": "file", "path": str(made / "rows")})
    db.execute("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id,"
               " error_message) values ('default', %s, 'i', E'no\\x1b[2J')", (name,))
    done = run_command("check", env={"PGTRICKLE_RELAY_POSTGRES_URL": db.relay_dsn})
    assert done.returncode == 3 and "\x1b" not in done.stdout
    commands = [line.split("remedy: ", 1)[1] for line in done.stdout.splitlines()
                if "remedy: " in line]
    for begin, words in (("nats stream add", 6), ("mkdir -p", 3), ("pgtrickle-relay dlq list", 4)):
        (command,) = [each for each in commands if each.startswith(begin)]
        command = re.split(r"; or |, then ", command)[0]
        assert len(shlex.split(command)) == words, command
        subprocess.run(["sh", "-c", f"set -- {command}; test $# = {words}"], check=True,
                       cwd=tmp_path)
    subprocess.run(["sh", "-c", next(each for each in commands if each.startswith("mkdir"))],
                   check=True, cwd=tmp_path)
    assert made.is_dir() and not (tmp_path / "trap").exists()


def test_one_that_does_not_answer_hides_no_other(db, orders, tmp_path):
    forward(db, "away", {"type": "nats", "url": "nats://127.0.0.1:1"})
    set_outbox(db, "broken", to_file("orders", tmp_path / "gone" / "rows"))
    set_outbox(db, "good", to_file("orders", tmp_path / "rows"))
    code, told = check(db)
    assert code == 3
    assert problems(told, "away") and problems(told, "broken")
    no_problem(told, "good")
    db.execute("select pgtrickle.delete_relay('broken')")
    assert check(db)[0] == 1
