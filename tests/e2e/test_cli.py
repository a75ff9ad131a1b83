"""The commands: what they print, with and without --json, and how they exit."""

import json
import re
import subprocess

import pytest

from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, position, set_outbox,
                               status_row, to_file, to_nats, wait_settled)
from support.nats_server import NatsServer
from support.processes import Process, free_port
from support.relay import Relay, clean_environment, relay_binary, run_command
from support.waiting import eventually

OK, FAILED, USAGE, INVALID = 0, 1, 2, 3
COMMANDS = ["run", "quickstart", "init", "check", "pipelines", "dlq", "tail", "status"]

pytestmark = pytest.mark.usefixtures("relay_bin")


def command(db, *arguments, **options):
    return run_command(*arguments, "--postgres-url", db.relay_dsn, **options)


def parsed(db, *arguments):
    done = command(db, *arguments, "--json")
    assert done.returncode == OK, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def lines(db, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path))
    return lines


# Help and usage ----------------------------------------------------------------------------


def test_help_names_every_command_flag_variable_and_default():
    done = run_command("--help")
    assert done.returncode == OK
    for name in COMMANDS:
        assert name in done.stdout, name
    help_of_run = done.stdout + run_command("run", "--help").stdout
    for flag, variable, default in [
            ("--postgres-url", "PGTRICKLE_RELAY_POSTGRES_URL", ""),
            ("--metrics-addr", "PGTRICKLE_RELAY_METRICS_ADDR", "0.0.0.0:9090"),
            ("--log-format", "PGTRICKLE_RELAY_LOG_FORMAT", "text"),
            ("--log-level", "PGTRICKLE_RELAY_LOG_LEVEL", "info"),
            ("--relay-group-id", "PGTRICKLE_RELAY_GROUP_ID", "default"),
            ("--config", "PGTRICKLE_RELAY_CONFIG", ""),
            ("--admin-token", "PGTRICKLE_RELAY_ADMIN_TOKEN", ""),
            ("--drain-timeout", "PGTRICKLE_RELAY_DRAIN_TIMEOUT", "30s"),
            ("--discovery-interval", "PGTRICKLE_RELAY_DISCOVERY_INTERVAL", "1s"),
            ("--ha-mode", "PGTRICKLE_RELAY_HA_MODE", "shared")]:
        for text in (flag, variable, default):
            assert text in help_of_run, text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = run_command(name, "--help")
    assert done.returncode == OK and done.stdout.strip()


def test_version_is_printed():
    done = run_command("--version")
    assert done.returncode == OK and re.search(r"\d+\.\d+\.\d+", done.stdout)


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["no-such-command"],
                                       ["pipelines", "no-such-verb"], ["pipelines", "pause"],
                                       ["run", "--log-format", "xml"]])
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(arguments):
    done = run_command(*arguments, timeout=20)
    assert done.returncode == USAGE, done.stdout + done.stderr
    assert done.stderr.strip()


def test_run_without_an_address_names_flag_and_variable():
    done = run_command("run", timeout=20)
    assert done.returncode in (USAGE, INVALID)
    assert "--postgres-url" in done.stderr and "PGTRICKLE_RELAY_POSTGRES_URL" in done.stderr


def test_a_file_that_cannot_be_parsed_is_refused_with_line_and_column(db, tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text("[global]\nmetrics_bind = \n")
    done = command(db, "run", "--config", path, timeout=20)
    assert done.returncode == INVALID
    assert "relay.toml:2" in done.stderr


def test_an_unset_flag_overrides_nothing_and_a_set_one_beats_environment_and_file(db, tmp_path):
    in_file, in_environment, in_flag = free_port(), free_port(), free_port()
    path = tmp_path / "relay.toml"
    path.write_text(f'[global]\npostgres_url = "{db.relay_dsn}"\n'
                    f'metrics_bind = "127.0.0.1:{in_file}"\n')
    for env, flag, port in [({}, None, in_file),
                            ({"PGTRICKLE_RELAY_METRICS_ADDR": f"127.0.0.1:{in_environment}"}, None,
                             in_environment),
                            ({"PGTRICKLE_RELAY_METRICS_ADDR": f"127.0.0.1:{in_environment}"},
                             f"127.0.0.1:{in_flag}", in_flag)]:
        with Relay(None, "--config", path, env=env, metrics_port=port, metrics_addr=flag) as relay:
            relay.wait_healthy()


def test_every_setting_can_come_from_the_environment_alone(db):
    port = free_port()
    env = {"PGTRICKLE_RELAY_POSTGRES_URL": db.relay_dsn,
           "PGTRICKLE_RELAY_METRICS_ADDR": f"127.0.0.1:{port}",
           "PGTRICKLE_RELAY_LOG_FORMAT": "json", "PGTRICKLE_RELAY_LOG_LEVEL": "debug",
           "PGTRICKLE_RELAY_GROUP_ID": "from-environment"}
    with Relay(None, env=env, metrics_port=port, metrics_addr=None) as relay:
        relay.wait_healthy()
        assert all(json.loads(line) for line in relay.log_lines)
        assert eventually(lambda: db.one("select relay_group_id from pgtrickle.relay_instances")) \
            == "from-environment"


# init --------------------------------------------------------------------------------------


def test_init_installs_again_and_again_and_dry_run_changes_nothing(empty_db):
    dry = run_command("init", "--dry-run", "--postgres-url", empty_db.dsn)
    assert dry.returncode == OK and "create" in dry.stdout.lower()
    assert empty_db.one("select to_regnamespace('pgtrickle')") is None
    for _ in range(2):
        done = run_command("init", "--postgres-url", empty_db.dsn)
        assert done.returncode == OK, done.stdout + done.stderr
    assert empty_db.one("select count(*) from pgtrickle.relay_schema_history") > 0


def test_two_inits_at_the_same_time_both_succeed(empty_db):
    argv = [relay_binary(), "init", "--postgres-url", empty_db.dsn]
    both = [subprocess.Popen(argv, env=clean_environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == OK, output


def test_init_without_the_right_to_install_says_so(empty_db):
    dsn = empty_db.login("ordinary_role")
    done = run_command("init", "--postgres-url", dsn)
    assert done.returncode == FAILED and done.stderr.strip()
    assert empty_db.one("select to_regnamespace('pgtrickle')") is None


def test_a_database_that_is_away_exits_with_1_and_names_the_endpoint():
    port = free_port()
    for arguments in (["init"], ["check"], ["pipelines", "list"], ["status"]):
        done = run_command(*arguments, "--postgres-url",
                           f"postgresql://x:hidden@127.0.0.1:{port}/y")
        assert done.returncode == FAILED, arguments
        assert str(port) in done.stderr + done.stdout, arguments
        assert "hidden" not in done.stderr + done.stdout


# check -------------------------------------------------------------------------------------


def test_check_is_content_with_what_is_right(db, lines):
    done = command(db, "check")
    assert done.returncode == OK, done.stdout + done.stderr


def test_check_names_every_problem_at_once_with_its_remedy(db, lines):
    absent = free_port()
    server = NatsServer(user="relay", password="right").start()
    try:
        set_outbox(db, "wrong-password", to_nats("orders", server, sink={"password": "wr0ng-one"}))
        set_outbox(db, "unreachable", {"stream_table": "orders", "subject_template": "x", "sink": {
            "type": "nats", "url": f"nats://127.0.0.1:{absent}"}})
        set_outbox(db, "bad-template", to_nats("orders", server, "relay.{nonsense}"))
        done = command(db, "check")
        text = done.stdout + done.stderr
        assert done.returncode in (FAILED, INVALID)
        for word in ("wrong-password", "unreachable", str(absent), "bad-template", "nonsense"):
            assert word in text, f"{word} is not in:\n{text}"
        assert "wr0ng-one" not in text
        report = command(db, "check", "--json")
        assert "bad-template" in json.dumps(json.loads(report.stdout))
    finally:
        server.stop()


def test_check_names_inboxes_whose_owners_code_runs_at_an_insert(db):
    db.login("postmaster")
    db.execute("create schema post authorization postmaster")
    db.execute("""
        create function post.stamp() returns trigger language plpgsql as 'begin return new; end';
        create table post.quiet (event_id text primary key, payload jsonb, n int default 1);
        create table post.busy (event_id text primary key, payload jsonb);
        create trigger stamp before insert on post.busy for each row execute function post.stamp();
        alter table post.quiet owner to postmaster; alter table post.busy owner to postmaster;
        select pgtrickle.enable_inbox_tracking('quiet', 'post.quiet');
        select pgtrickle.enable_inbox_tracking('busy', 'post.busy')""")
    done = run_command("check", "--postgres-url", db.relay_dsn)
    said = [line for line in done.stdout.splitlines() if line.startswith("WARNING inbox")]
    assert len(said) == 1 and "post.busy, which belongs to postmaster, as relay_daemon" in said[0]
    assert done.returncode == 0


def test_check_names_init_where_the_schema_is_missing(empty_db):
    done = run_command("check", "--postgres-url", empty_db.dsn)
    assert done.returncode != OK
    assert "pgtrickle-relay init" in done.stdout + done.stderr


# pipelines ---------------------------------------------------------------------------------


def test_pipelines_list_and_show(db, lines):
    listed = command(db, "pipelines", "list")
    assert listed.returncode == OK and "rows" in listed.stdout
    assert "rows" in json.dumps(parsed(db, "pipelines", "list"))
    shown = command(db, "pipelines", "show", "rows")
    assert shown.returncode == OK and "orders" in shown.stdout
    assert "orders" in json.dumps(parsed(db, "pipelines", "show", "rows"))
    unknown = command(db, "pipelines", "show", "no-such")
    assert unknown.returncode == FAILED and "no-such" in unknown.stderr


def as_admin(db):
    """Changing pipelines is an administrator's right, which the daemon's role need not have."""
    return db.login("relay_operator", "pgtrickle_admin")


def test_pipelines_disable_enable_pause_resume_and_replay(db, lines):
    admin = as_admin(db)

    def do(*arguments):
        done = run_command("pipelines", *arguments, "--postgres-url", admin)
        assert done.returncode == OK, done.stdout + done.stderr

    with Relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        do("pause", "rows")
        relay.wait_state("rows", "paused")
        insert_rows(db, "orders", 4)
        do("resume", "rows")
        lines.wait_rows([1, 2, 3, 4])
        wait_settled(db, "rows", "orders")
        before = position(db, "rows")
        first = lines.messages()[0]["sequence"]
        do("replay", "rows", "--from", first, "--to", first + 1)
        lines.wait_rows([1, 2, 3, 4, 1, 2])
        assert position(db, "rows") == before
        do("disable", "rows")
        assert db.one("select enabled from pgtrickle.relay_outbox_config") is False
        do("enable", "rows")
        insert_rows(db, "orders", 5)
        lines.wait_rows([1, 2, 3, 4, 1, 2, 5])


# dlq ---------------------------------------------------------------------------------------


def test_dlq_list_show_retry_and_discard(db):
    admin = as_admin(db)
    make_table(db)
    server = NatsServer(max_payload=4096).start()
    try:
        with server.client() as client:
            client.create_stream("s", "relay.>")
        set_outbox(db, "rows", to_nats("orders", server, "relay.rows", message="row"))
        db.execute("insert into orders values (1, repeat('a', 9000), 1), (2, repeat('b', 9000), 2)")
        with Relay(db.relay_dsn):
            eventually(lambda: db.one("select count(*) from pgtrickle.relay_dlq") == 2)

            def do(*arguments):
                done = run_command("dlq", *arguments, "--postgres-url", admin)
                assert done.returncode == OK, done.stdout + done.stderr
                return done.stdout
            first, second = [row[0] for row in db.execute(
                "select id from pgtrickle.relay_dlq order by id")]
            assert "rows" in do("list")
            assert len(json.loads(do("list", "--json"))) == 2
            shown = do("show", first)
            assert "relay.rows" in shown and shown.count("a" * 9000) == 1
            assert re.search(r"^message_id +rows:", shown, re.M), "one column a line"
            attempts = db.one("select attempts from pgtrickle.relay_dlq where id = %s", (first,))
            do("retry", first)
            eventually(lambda: db.one("select attempts from pgtrickle.relay_dlq where id = %s",
                                      (first,)) > attempts)
            do("discard", second)
            assert db.one("select resolved_at is not null from pgtrickle.relay_dlq where id = %s",
                          (second,))
            assert "purged: 1\n" in do("purge", "--older-than", "0 seconds")
            assert json.loads(do("purge", "--older-than", "0 seconds", "--json")) == \
                {"ok": True, "count": 0}
            db.execute("update pgtrickle.relay_dlq set payload = '\\xff00'")
            assert re.search(r"^payload +\\xff00$", do("show", first), re.M)
    finally:
        server.stop()


# tail and status ---------------------------------------------------------------------------


def test_tail_prints_a_pipelines_messages_live_and_moves_no_position(db, lines, tmp_path):
    with Relay(db.relay_dsn) as relay, open(tmp_path / "tail", "wb") as out, \
            open(tmp_path / "errors", "wb") as errors:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        wait_settled(db, "rows", "orders")
        db.execute("select pgtrickle.pause_relay('rows')")
        relay.wait_state("rows", "paused")
        before = offsets(db)
        tail = Process([relay_binary(), "tail", "rows", "--json", "--postgres-url", db.relay_dsn],
                       env=clean_environment(), stdout=out, stderr=errors)
        identity = 1

        def shown():
            nonlocal identity
            identity += 1
            insert_rows(db, "orders", identity)
            return Lines(tmp_path / "tail").messages()
        eventually(shown, 15 * SLOW_FACTOR, interval=0.1,
                   message=lambda: (tmp_path / "errors").read_text())
        tail.signal(2)
        assert tail.wait(10) in (OK, 130, -2)
        bodies = [json.loads(message["body"]) for message in Lines(tmp_path / "tail").messages()]
        assert 1 not in [row["id"] for body in bodies for row in body["delta"]["inserted"]], \
            "it begins with what comes next"
        assert offsets(db) == before


def offsets(db):
    """All positions that there are: who only looks leaves none, and moves none."""
    return db.execute("select relay_group_id, pipeline_id, last_change_id, owner_token"
                      " from pgtrickle.relay_consumer_offsets order by 1, 2")


def test_tail_begins_where_it_is_told_and_ends_after_its_count(db, lines):
    insert_rows(db, "orders", 1, 5)
    second = db.one("select id from pgtrickle.outbox_orders order by id offset 1 limit 1")
    done = command(db, "tail", "rows", "--from", second, "--count", 3)
    assert done.returncode == OK, done.stderr
    told = [json.loads(line.partition("  ")[2]) for line in done.stdout.splitlines()]
    assert [message["delta"]["inserted"][0]["id"] for message in told] == [2, 3, 4]
    assert offsets(db) == []
    unknown = command(db, "tail", "no-such")
    assert unknown.returncode == FAILED and "no-such" in unknown.stderr


def test_status_shows_what_runs_where(db, lines):
    with Relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        relay.wait_healthy(pipelines=1)
        eventually(lambda: status_row(db, "rows"))
        done = command(db, "status")
        assert done.returncode == OK and "rows" in done.stdout
        assert "\x1b[" not in done.stdout, "no colour if the output is no terminal"
        told = parsed(db, "status")
        assert told["relay_running"] and [i["alive"] for i in told["instances"]] == [True]
        (row,) = told["pipelines"]
        assert (row["pipeline"], row["owner"]) == ("rows", told["instances"][0]["worker_id"])
        assert row["lag"] == 0 and row["lag_exact"]


def test_status_without_a_relay_says_that_and_counts_what_waits(db, lines):
    with Relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        wait_settled(db, "rows", "orders")
        eventually(lambda: status_row(db, "rows"))
        relay.kill9()
        insert_rows(db, "orders", 2, 3)

        def told():
            told = parsed(db, "status")
            return told if not told["relay_running"] else None
        now = eventually(told, 10)
    (row,) = now["pipelines"]
    assert (row["state"], row["owner"], row["lag"]) == ("unowned", None, 3)
    assert [instance["alive"] for instance in now["instances"]] == [False]
    assert row["position"] == position(db, "rows")[0]
    assert "No relay is running" in command(db, "status").stdout
    (listed,) = parsed(db, "pipelines", "list")
    assert (listed["state"], listed["owner"], listed["lag"]) == ("unowned", None, 3)


def test_a_deleted_pipeline_vanishes_and_a_disabled_one_says_since_when(db, lines, tmp_path):
    set_outbox(db, "more", to_file("orders", tmp_path / "more.jsonl"))
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=2)
        eventually(lambda: status_row(db, "rows") and status_row(db, "more"))
        db.execute("select pgtrickle.delete_relay('more')")
        db.execute("select pgtrickle.disable_relay('rows')")
        relay.wait_healthy(pipelines=0)

        def told():
            return [(row["pipeline"], row["state"]) for row in parsed(db, "status")["pipelines"]]
        eventually(lambda: told() == [("rows", "disabled")], message=told)
        eventually(lambda: status_row(db, "rows")["state"] == "stopped")
        assert db.one("select clock_timestamp() - since < interval '1 minute'"
                      " from pgtrickle.relay_pipeline_status")
    assert told() == [("rows", "disabled")]


def test_a_status_is_shown_while_an_outbox_is_locked_or_gone(db, lines):
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1)
        lines.wait_rows([1])
        wait_settled(db, "rows", "orders")
    with db.connect() as other:
        other.execute("begin; lock table pgtrickle.outbox_orders")
        (row,) = parsed(db, "status")["pipelines"]
        assert (row["state"], row["lag"], row["lag_exact"]) == ("unowned", None, False)
        other.execute("commit")
    db.execute("drop table pgtrickle.outbox_orders cascade")
    (row,) = parsed(db, "status")["pipelines"]
    assert (row["state"], row["lag"]) == ("unowned", None)


# TOML --------------------------------------------------------------------------------------


def test_an_invalid_pipeline_in_a_file_stops_alone_and_sighup_repairs_it(db, tmp_path):
    make_table(db)
    good, bad = Lines(tmp_path / "good.jsonl"), Lines(tmp_path / "bad.jsonl")
    path = tmp_path / "relay.toml"

    def write(option):
        source = '{ type = "outbox", stream_table = "orders" }'
        path.write_text(f'[global]\npostgres_url = "{db.relay_dsn}"\n'
                        f'[[pipeline]]\nname = "good"\nsource = {source}\n'
                        f'sink = {{ type = "file", path = "{good.path}" }}\n'
                        f'[[pipeline]]\nname = "bad"\nsource = {source}\n'
                        f'sink = {{ type = "file", {option} = "{bad.path}" }}\n')
    write("paht")
    with Relay(None, "--config", path) as relay:
        broken = relay.wait_state("bad", "misconfigured")
        assert "paht" in broken["last_error"] and "path" in broken["last_error"].replace("paht", "")
        insert_rows(db, "orders", 1)
        good.wait_rows([1])
        path.write_text("this is [ not TOML")
        relay.process.signal(1)
        eventually(lambda: "relay.toml:1" in relay.log())
        insert_rows(db, "orders", 2)
        good.wait_rows([1, 2])  # a file that cannot be parsed changes nothing
        write("path")
        relay.process.signal(1)
        bad.wait_rows([1, 2])
        relay.wait_healthy(pipelines=2)


def test_a_name_that_stands_in_the_file_and_in_sql_is_an_error_of_that_name(db, lines, tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text(f'[global]\npostgres_url = "{db.relay_dsn}"\n[[pipeline]]\nname = "rows"\n'
                    f'source = {{ type = "outbox", stream_table = "orders" }}\n'
                    f'sink = {{ type = "file", path = "{tmp_path}/other.jsonl" }}\n')
    with Relay(None, "--config", path) as relay:
        eventually(lambda: "rows" in relay.log() and relay.health()[1]["status"] != "healthy")
