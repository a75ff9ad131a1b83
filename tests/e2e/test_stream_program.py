"""postgres-stream: what its manual shows, and what it says of servers and roles."""

import json
import signal
import subprocess

import pytest
from support.breakage_scenes import Bouncer, running
from support.http_server import HttpServer
from support.postgres import PASSWORD
from support.stream_database import seed
from support.stream_program import (StreamProgram, configure, connection,  # noqa: F401
                                    end_database, insert, make_server, run, stream_home,
                                    stream_program_server, subscribe_orders, wait_running,
                                    wait_trouble, write_config)
from support.stream_source import CrossingWriters
from support.waiting import eventually, holds_for

TOKEN = "token-of-the-webhook-9157"
OTHER_TOKEN = "{another}-that-its-name-does-not-tell"
MEMORY = {"type": "memory"}

MANUAL_CONFIG = """
stream:
  id: 1  # Unique stream ID
  pg_connection:
    host: localhost
    port: 5432
    name: mydb
    username: postgres
    password: postgres
    tls:
      enabled: false
  batch:
    max_size: 1000      # Events per batch
    max_fill_secs: 5    # Max time to fill batch

sink:
  type: memory  # Built-in test sink
"""


@pytest.fixture
def sink():
    server = HttpServer()
    server.start()
    yield server
    server.stop()


def http(sink, **over):
    return {"type": "http", "url": sink.url("/hook"), "allow_private": True} | over


def delivered(sink, path="/hook"):
    """The events that the sink took. (`check` sends it a HEAD.)"""
    return [request.json for request in sink.accepted(path) if request.method == "POST"]


def here(database):
    """The environment that leads the manual's configuration to a database."""
    return {f"POSTGRES_STREAM__STREAM__PG_CONNECTION__{name.upper()}": str(value)
            for name, value in connection(database).items()}


# The manual -------------------------------------------------------------------------------------


def test_the_steps_of_the_manual(stream_home, tmp_path):
    (tmp_path / "config.yaml").write_text(MANUAL_CONFIG)
    with StreamProgram(tmp_path, env=here(stream_home)) as program:
        wait_running(program)
        stream_home.execute(
            "create table public.users (id int generated always as identity, email text,"
            " email_verified boolean, created_at timestamptz default now())")
        stream_home.execute(seed("subscribe.sql"))
        stream_home.execute("insert into users (email, email_verified)"
                            " values ('user@example.com', true), ('other@example.com', false)")
        program.wait_metric("memory_messages", 1, pipeline="stream-1")
        assert program.health()[1]["pipelines"][0]["sink_report"]["numbers"]["memory_messages"] == 1


def test_the_sink_receives_the_payloads_of_the_manual(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        stream_home.execute(
            "create table public.users (id int generated always as identity, email text,"
            " email_verified boolean, created_at timestamptz default now());"
            "create table public.orders (id int, user_id int, total numeric)")
        stream_home.execute(seed("subscribe.sql"))
        stream_home.execute(seed("extensions.sql"))
        stream_home.execute(seed("insert_user.sql"))
        stream_home.execute("insert into orders values (456, 123, 99.99)")
        eventually(lambda: len(delivered(sink)) == 2, 30, message=program._story)
    user, order = delivered(sink)
    assert (user["tg_name"], user["tg_op"], user["tg_table_name"], user["tg_table_schema"]) == (
        "user-signup", "INSERT", "users", "public")
    assert user["old"] is None and isinstance(user["timestamp"], int)
    assert user["new"]["email"] == "user@example.com" and "created_at" in user["new"]
    assert order["new"] == {"id": 456, "user_id": 123, "total": 99.99}
    assert (order["group_id"], order["queue_name"]) == ("123", "orders-high-priority")


def test_it_installs_once_and_goes_on_where_it_ended(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home, 10)
        eventually(lambda: len(delivered(sink)) == 10, 30, message=program._story)
    insert(stream_home, 10)
    installed = "select installed_at from pgstream.daemon_installed"
    before = stream_home.one(installed)
    with StreamProgram(tmp_path) as program:
        eventually(lambda: {event["new"]["id"] for event in delivered(sink)} == set(range(1, 21)),
                   30, message=program._story)
        assert "installed" not in program.log()
    assert stream_home.one(installed) == before


def test_a_sink_that_rejects_everything_degrades_the_stream(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink))
    sink.rules({"status": 422})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home, 10)
        wait_trouble(program, "every message since", "UPDATE pgstream.dead_letters", '"degraded"')
        assert "pgtrickle" not in program.get("/health")[1]
        sink.rules()
        insert(stream_home)
        program.wait_healthy()


def test_several_streams_have_sinks_of_their_own(stream_home, tmp_path, sink):
    write_config(tmp_path, {
        "streams": [{"id": 1, "pg_connection": connection(stream_home)},
                    {"id": 2, "pg_connection": connection(stream_home),
                     "sink": http(sink, url=sink.url("/second"))}],
        "sink": http(sink)})
    with StreamProgram(tmp_path) as program:
        wait_running(program, "stream-1")
        wait_running(program, "stream-2")
        subscribe_orders(stream_home, 1)
        subscribe_orders(stream_home, 2)
        insert(stream_home)
        eventually(lambda: len(delivered(sink)) == 1 == len(delivered(sink, "/second")), 30,
                   message=program._story)


def test_it_ends_on_sigterm_and_reloads_on_sighup(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home)
        eventually(lambda: len(delivered(sink)) == 1, 30, message=program._story)
        (tmp_path / "config.yaml").write_text("stream: [")
        program.process.signal(signal.SIGHUP)
        eventually(lambda: "config.yaml:1:" in program.log())
        insert(stream_home)
        eventually(lambda: len(delivered(sink)) == 2, 30, message=program._story)
        configure(tmp_path, stream_home, http(sink, url=sink.url("/other")))
        program.process.signal(signal.SIGHUP)
        insert(stream_home)
        eventually(lambda: 3 in [event["new"]["id"] for event in
                                 delivered(sink) + delivered(sink, "/other")], 30,
                   message=program._story)
        insert(stream_home)
        eventually(lambda: 4 in [event["new"]["id"] for event in delivered(sink, "/other")], 30,
                   message=program._story)
        configure(tmp_path, stream_home, MEMORY, {"id": 7})
        program.process.signal(signal.SIGHUP)
        wait_running(program, "stream-7")
        assert [p["name"] for p in program.health()[1]["pipelines"]] == ["stream-7"]
        assert program.metric("owned", pipeline="stream-1") is None


# Secrets ----------------------------------------------------------------------------------------


def test_a_token_in_the_headers_of_an_http_sink_is_sent_and_kept_nowhere(stream_home, tmp_path,
                                                                         sink):
    configure(tmp_path, stream_home,
              http(sink, headers={"Authorization": f"Bearer {TOKEN}", "X-Our-Name": OTHER_TOKEN}),
              log_level="debug")
    checked = run(tmp_path, "check")
    assert checked.returncode == 0 and TOKEN not in checked.stdout + checked.stderr, checked
    sink.rules({"contains": '"poison"', "status": 422})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        stream_home.execute("insert into public.orders (note) values ('poison'), ('good')")
        eventually(lambda: len(delivered(sink)) == 1, 30, message=program._story)
        letters = eventually(lambda: stream_home.execute(
            "select d::text, headers from pgstream.dead_letters d"))
        program.wait_metric("dlq_messages", 1, pipeline="stream-1")
        shown = program.get("/api/dlq")
        assert shown[0] == 200 and len(json.loads(shown[1])) == 1, shown
        sink.rules({"status": 401, "answer": "not you"})
        insert(stream_home)
        wait_trouble(program, "401")
        pages = [program.get(path)[1] for path in ("/health", "/metrics", "/api/pipelines")]
        for text in [*pages, shown[1], program.log(1000), str(letters)]:
            assert TOKEN not in text and OTHER_TOKEN not in text and PASSWORD not in text
        sink.rules()
        eventually(lambda: len(delivered(sink)) == 2, 30, message=program._story)
        request = sink.accepted("/hook")[-1]
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["x-our-name"] == OTHER_TOKEN
        stream_home.execute("update pgstream.dead_letters set retry_requested_at = now()")
        eventually(lambda: len(delivered(sink)) == 3, 30, message=program._story)
        eventually(lambda: stream_home.one("select resolution from pgstream.dead_letters")
                   == "retried")


def test_the_dead_letters_of_all_streams_are_listed(stream_home, tmp_path, sink):
    other = stream_home.server.create_database(template="template0")
    write_config(tmp_path, {
        "streams": [{"id": number, "pg_connection": connection(database)}
                    for number, database in ((1, stream_home), (2, other), (3, stream_home))],
        "sink": http(sink)})
    sink.rules({"contains": '"poison"', "status": 422})

    def listed(program, query=""):
        return [(letter["pipeline"], letter["error_code"])
                for letter in json.loads(program.get(f"/api/dlq{query}")[1])]
    try:
        with StreamProgram(tmp_path) as program:
            for number, database in ((1, stream_home), (2, other), (3, stream_home)):
                wait_running(program, f"stream-{number}")
                subscribe_orders(database, number)
            for database in (stream_home, other):
                database.execute("insert into public.orders (note) values ('poison')")
            names = ["stream-1", "stream-2", "stream-3"]
            eventually(lambda: sorted(name for name, _ in listed(program)) == names, 30,
                       message=program._story)
            assert {code for _, code in listed(program)} == {"http_422"}
            assert [name for name, _ in listed(program, "?pipeline=stream-2")] == ["stream-2"]
            assert len(listed(program, "?limit=2")) == 2
    finally:
        end_database(other)


# What is wrong with the server ------------------------------------------------------------------


def test_a_private_address_needs_a_word(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink, allow_private=False))
    done = run(tmp_path, "check")
    assert done.returncode == 3 and "allow_private" in done.stdout, done
    with StreamProgram(tmp_path) as program:
        program.wait_up()
        eventually(lambda: program.get("/health/ready")[0] == 200)
        subscribe_orders(stream_home)
        insert(stream_home)
        wait_trouble(program, "allow_private")


def test_a_role_that_may_not_install_is_told(stream_home, tmp_path):
    stream_home.login("plain_role")
    configure(tmp_path, stream_home, MEMORY,
              {"pg_connection": connection(stream_home, username="plain_role")})
    with StreamProgram(tmp_path) as program:
        program.wait_up()
        wait_trouble(program, "installing the schema pgstream", "GRANT CREATE ON DATABASE")
    assert stream_home.one("select to_regnamespace('pgstream') is null")


def test_a_role_without_replication_can_read_the_table(stream_home, tmp_path):
    configure(tmp_path, stream_home, MEMORY)
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
    stream_home.login("only_daemon", "pgstream_daemon")
    configure(tmp_path, stream_home, MEMORY,
              {"pg_connection": connection(stream_home, username="only_daemon"),
               "reader": "table"})
    assert run(tmp_path, "check").returncode == 0
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        insert(stream_home, 3)
        program.wait_metric("memory_messages", 3, pipeline="stream-1")


def test_through_a_pooler(stream_home, tmp_path):
    """In session mode the table can be read. What does not work says what to do."""
    bouncer = Bouncer(stream_home, "session", stream_home.dsn)
    way = connection(stream_home, port=bouncer.port)
    with running(bouncer):
        configure(tmp_path, stream_home, MEMORY, {"pg_connection": way, "reader": "table"})
        with StreamProgram(tmp_path) as program:
            wait_running(program)
            subscribe_orders(stream_home)
            insert(stream_home, 3)
            program.wait_metric("memory_messages", 3, pipeline="stream-1")
        configure(tmp_path, stream_home, MEMORY, {"pg_connection": way})
        with StreamProgram(tmp_path) as program:
            program.wait_up()
            wait_trouble(program, "parameter: replication",
                         "connect to PostgreSQL itself", "set reader to table")
    bouncer = Bouncer(stream_home, "transaction", stream_home.dsn)
    configure(tmp_path, stream_home, MEMORY,
              {"pg_connection": connection(stream_home, port=bouncer.port), "reader": "table"})
    with running(bouncer), StreamProgram(tmp_path) as program:
        program.wait_up()
        wait_trouble(program, "a pooler gives each transaction another session",
                     "a pool in session mode")


def test_a_role_of_few_rights_runs_what_another_installed(stream_home, tmp_path):
    configure(tmp_path, stream_home, MEMORY)
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
    stream_home.login("daemon_of_stream", "pgstream_daemon")
    stream_home.execute("alter role daemon_of_stream replication")
    configure(tmp_path, stream_home, MEMORY,
              {"pg_connection": connection(stream_home, username="daemon_of_stream")})
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        insert(stream_home, 3)
        program.wait_metric("memory_messages", 3, pipeline="stream-1")


@pytest.mark.parametrize("rights", ["createrole", "nocreaterole"])
def test_the_owner_of_the_database_can_install(rights, tmp_path):
    server = make_server()
    try:
        database = server.create_database(template="template0")
        database.login("installer")
        database.execute(f"alter role installer replication {rights};"
                         f"alter database {database.name} owner to installer")
        configure(tmp_path, database, MEMORY,
                  {"pg_connection": connection(database, username="installer")})
        with StreamProgram(tmp_path) as program:
            wait_running(program)
            subscribe_orders(database)
            insert(database, 3)
            program.wait_metric("memory_messages", 3, pipeline="stream-1")
    finally:
        server.stop_immediate()


def test_check_finds_nothing_and_makes_nothing(stream_home, tmp_path):
    configure(tmp_path, stream_home, MEMORY)
    done = run(tmp_path, "check")
    assert done.returncode == 0, done
    assert stream_home.one("select to_regnamespace('pgstream') is null")
    assert stream_home.execute("select from pg_replication_slots") == []


def test_a_newer_schema_is_refused(stream_home, tmp_path):
    configure(tmp_path, stream_home, MEMORY)
    with StreamProgram(tmp_path) as program:
        wait_running(program)
    stream_home.execute("update pgstream.daemon_installed set schema_version = 999, checksum = ''")
    with StreamProgram(tmp_path) as program:
        program.wait_up()
        wait_trouble(program, "version 999", "the version of postgres-stream that installed it")


def test_an_older_schema_is_upgraded(stream_home, tmp_path):
    configure(tmp_path, stream_home, MEMORY)
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
    stream_home.execute("update pgstream.daemon_installed set checksum = 'of another program';"
                        "drop function pgstream.stream_status(bigint)")
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        insert(stream_home)
        program.wait_metric("memory_messages", 1, pipeline="stream-1")
        assert "installed" in program.log()
    assert stream_home.one("select to_regprocedure('pgstream.stream_status(bigint)') is not null")


# Another system -----------------------------------------------------------------------------------


def need_pg_dump(server):
    """An older pg_dump refuses a newer server."""
    told = subprocess.run([f"{server.bin}/pg_dump", "--version"], capture_output=True, text=True)
    if f" {server.version}." not in told.stdout:
        pytest.skip(f"no pg_dump of PostgreSQL {server.version} is here, but {told.stdout.strip()}")


def restored(database, server):
    """A dump of the database, in another server."""
    copy = server.create_database(template="template0")
    with server.connect() as connection:
        for role in ("pgstream_owner", "pgstream_daemon", "pgstream_subscriber"):
            connection.execute(f"create role {role} nologin")
    dumped = subprocess.run([f"{server.bin}/pg_dump", database.dsn], capture_output=True,
                            check=True)
    done = subprocess.run([f"{server.bin}/psql", "-qX", "-v", "ON_ERROR_STOP=1", copy.dsn],
                          input=dumped.stdout, capture_output=True)
    assert done.returncode == 0, done.stderr
    return copy


@pytest.mark.parametrize("flag, wanted", [("--resend", {3, 4, 5}), ("--skip", {5})])
def test_a_restored_dump_waits_for_a_decision(stream_home, tmp_path, sink, flag, wanted):
    need_pg_dump(stream_home.server)
    # The other server counts transactions from further back.
    stream_home.execute("do $$ begin for i in 1..5000 loop perform pg_current_xact_id();"
                        " commit; end loop; end $$")
    configure(tmp_path, stream_home, http(sink))
    with StreamProgram(tmp_path) as program:
        wait_running(program)
        subscribe_orders(stream_home)
        insert(stream_home)
        insert(stream_home)
        eventually(lambda: ids(sink) == {1, 2}, 30, message=program._story)
        settled = stream_home.one("select pg_current_snapshot()::text")
        eventually(lambda: stream_home.one(
            "select pg_snapshot_xmax(settled_snapshot) >= pg_snapshot_xmax(%s::pg_snapshot)"
            " from pgstream.streams", (settled,)), 30)
    insert(stream_home)
    insert(stream_home)
    server = make_server()
    try:
        copy = restored(stream_home, server)
        configure(tmp_path, copy, http(sink, url=sink.url("/copy")))
        with StreamProgram(tmp_path) as program:
            program.wait_up()
            wait_trouble(program, "system identifier", "--resend", "--skip")
            assert delivered(sink, "/copy") == []
        with StreamProgram(tmp_path, flag) as program:
            wait_running(program)
            insert(copy)
            eventually(lambda: {e["new"]["id"] for e in delivered(sink, "/copy")} >= wanted, 30,
                       message=program._story)
        # The flag does nothing where nothing is to be decided.
        insert(copy)
        with StreamProgram(tmp_path, flag) as program:
            eventually(lambda: {e["new"]["id"] for e in delivered(sink, "/copy")} >= wanted | {6},
                       30, message=program._story)
        assert {e["new"]["id"] for e in delivered(sink, "/copy")} == wanted | {6}
    finally:
        server.stop_immediate()


# One owner a stream -----------------------------------------------------------------------------


def owner_of(programs):
    """The one program that owns the stream."""
    owners = [p for p in programs if p.running and p.pipeline("stream-1")["owner"]]
    return owners[0] if len(owners) == 1 else None


def ids(sink):
    return {event["new"]["id"] for event in delivered(sink)}


def wait_all(database, sink, programs):
    wanted = {row[0] for row in database.execute("select id from public.orders")}
    eventually(lambda: ids(sink) >= wanted, 60, message=lambda: (
        f"missing {sorted(wanted - ids(sink))[:20]} of {len(wanted)}\n"
        + "\n".join(p.log(30) for p in programs)))


@pytest.fixture
def pair(stream_home, tmp_path, sink):
    configure(tmp_path, stream_home, http(sink))
    programs = [StreamProgram(tmp_path).start(), StreamProgram(tmp_path).start()]
    for program in programs:
        program.wait_up()
        eventually(lambda: program.get("/health/ready")[0] == 200, 30, message=program._story)
    owner = eventually(lambda: owner_of(programs), 30)
    wait_running(owner)
    subscribe_orders(stream_home)
    standby = next(p for p in programs if p is not owner)
    return owner, standby


def test_a_standby_waits_and_says_so(pair, stream_home, sink):
    owner, standby = pair
    insert(stream_home, 5)
    wait_all(stream_home, sink, pair)
    entry = standby.pipeline("stream-1")
    assert entry["state"] == "standby" and not entry["owner"]
    assert standby.health()[1]["status"] == "healthy"
    assert standby.metric("owned", pipeline="stream-1") == 0
    assert owner.metric("owned", pipeline="stream-1") == 1


def test_a_standby_takes_over_at_once_when_the_owner_ends(pair, stream_home, sink):
    owner, standby = pair
    insert(stream_home, 5)
    wait_all(stream_home, sink, pair)
    owner.stop()
    eventually(lambda: standby.pipeline("stream-1")["owner"], 2)
    insert(stream_home, 5)
    wait_all(stream_home, sink, pair)


def test_takeover_after_a_kill_misses_nothing(pair, stream_home, sink):
    owner, standby = pair
    with CrossingWriters(stream_home, seed=1, count=4) as writers:
        eventually(lambda: len(ids(sink)) > 50, 30)
        owner.kill9()
        seen = len(ids(sink))
        eventually(lambda: standby.pipeline("stream-1")["owner"], 2, interval=0.005)
        eventually(lambda: len(ids(sink)) > seen + 20, 30, message=standby._story)
    writers.commit_prepared()
    wait_all(stream_home, sink, pair)


def test_takeover_after_a_freeze_misses_nothing(pair, stream_home, sink):
    owner, standby = pair
    sessions = ("select pid from pg_stat_activity where datname = current_database()"
                " and application_name = 'postgres-stream stream-1'")
    with CrossingWriters(stream_home, seed=1, count=4) as writers:
        eventually(lambda: len(ids(sink)) > 50, 30)
        before = eventually(lambda: set(stream_home.execute(sessions)))
        owner.freeze()
        seen = len(ids(sink))
        eventually(lambda: standby.pipeline("stream-1")["owner"], 5 + 2)
        eventually(lambda: not before & set(stream_home.execute(sessions)), 1,
                   message=standby._story)
        eventually(lambda: len(ids(sink)) > seen + 20, 30, message=standby._story)
        owner.thaw()
        eventually(lambda: owner.pipeline("stream-1")["state"] == "standby", 30,
                   message=owner._story)
        holds_for(lambda: standby.pipeline("stream-1")["owner"], 2)
    writers.commit_prepared()
    wait_all(stream_home, sink, pair)
