"""What commands show on a terminal: tables that fit, records, live tables, progress."""

import re
import signal
import subprocess

import pytest

from support.fixtures import need
from support.nats_server import NatsServer
from support.pipelines import SLOW_FACTOR, Lines, insert_rows, set_outbox, to_file, to_nats
from support.quickstart import reachable_tmp  # noqa: F401
from support.relay import Relay, clean_environment, relay_binary, run_command
from support.terminal import Tmux, on_terminal, plain, width
from support.waiting import eventually

OK, FAILED = 0, 1

pytestmark = pytest.mark.usefixtures("relay_bin")

NAMES = ["orders-to-nats", "売上を倉庫へ送るパイプライン", "größter " + "x" * 70,
         "e\u0301criture 🎉 party"]


@pytest.fixture
def pipelines(orders, db):
    for name in NAMES:
        set_outbox(db, name, to_file("orders", "/tmp/none"))


def url(dsn):
    """In the environment: of a flag the program warns."""
    return {"PGTRICKLE_RELAY_POSTGRES_URL": dsn}


def shown(db, *arguments, env=None, **options):
    code, text = on_terminal(*arguments, env={**url(db.relay_dsn), **(env or {})}, **options)
    assert code == OK, text
    return text


# Tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_a_table_fits_the_width_and_names_what_it_leaves_out(pipelines, db, columns):
    for command in (["pipelines", "list"], ["status"], ["pipelines"]):
        lines = plain(shown(db, *command, columns=columns)).splitlines()
        table = [line for line in lines if not line.startswith(("not shown", "No relay"))]
        assert max(map(width, table)) <= columns, "\n".join(lines)
        assert any(line.startswith("orders-to"[:columns]) for line in lines), "\n".join(lines)
        if columns == 60:
            assert any("…" in line for line in table) and "not shown" in lines[-1]
        if columns == 200:
            assert not any("not shown" in line for line in lines) or command == ["status"]


def test_columns_are_under_their_names_whatever_the_width_of_letters(pipelines, db):
    lines = plain(shown(db, "pipelines", "list", columns=120)).splitlines()
    place = lines[0].index("direction")
    for line in lines[1:1 + len(NAMES)]:
        before = line[:line.index("forward")]
        assert width(before) == place, "\n".join(lines)


def test_a_pipe_gets_all_columns_and_no_colour(pipelines, db):
    piped = run_command("pipelines", "list", "--postgres-url", db.relay_dsn,
                        env={"COLUMNS": "20", "TERM": "xterm"}).stdout
    assert piped.splitlines()[0].split() == ["name", "direction", "enabled", "state", "group", "owner",
                                             "position", "lag", "last_error"]
    assert all(name in piped for name in NAMES) and "\x1b" not in piped


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": None}, {"TERM": ""}])
def test_without_colours_there_is_no_escape(pipelines, db, env):
    assert "\x1b" not in shown(db, "status", env=env)
    assert "\x1b[" in shown(db, "status", env={"NO_COLOR": ""})


def test_a_locale_without_unicode_gets_dots(pipelines, db):
    text = plain(shown(db, "pipelines", "list", columns=60, env={"LANG": "C"}))
    assert "..." in text and "…" not in text


@pytest.mark.parametrize("columns", ["0", "-5", "abc", "1", "9" * 40, "100000", ""])
def test_an_absurd_width_is_no_problem(pipelines, db, columns):
    """Of a terminal that does not know its own."""
    text = shown(db, "pipelines", "list", columns=0, lines=0, env={"COLUMNS": columns})
    assert "orders" in text


def test_control_characters_do_not_reach_the_terminal(orders, db):
    db.execute("insert into pgtrickle.relay_dlq (pipeline, relay_group_id, message_id, subject, key,"
               " error_class, error_code, error_message, payload) values ('p', 'default', 'm',"
               " e'a\\x1b]0;title\\x07b', e'k\\nl', 'rejected', 'c', e'first\\nsecond\\x1b[2J', 'x')")
    for command in (["dlq", "list"], ["dlq", "show", db.one("select id from pgtrickle.relay_dlq")]):
        text = shown(db, *command, columns=250)
        assert r"\x1b]0;title" in text and "\x1b]" not in text and "\x1b[2J" not in text


def test_a_single_record_has_a_line_for_each_column(pipelines, db):
    for command in (["pipelines", "show", NAMES[1]], ["status", NAMES[1]]):
        text = plain(shown(db, *command, columns=60))
        assert re.search(rf"^(name|pipeline) +{NAMES[1]}$", text, re.M), text
        lines = [line for line in text.splitlines() if not line.startswith("No relay")]
        assert max(map(width, lines)) <= 60, text
    piped = run_command("pipelines", "show", NAMES[1], "--postgres-url", db.relay_dsn).stdout
    assert piped.splitlines()[0].split()[:2] == ["name", "direction"]
    code, text = on_terminal("status", "orders-to-nat", env=url(db.relay_dsn))
    assert code == FAILED and 'did you mean "orders-to-nats"' in text


def test_a_reader_that_has_gone_ends_a_command(pipelines, db):
    process = subprocess.Popen([relay_binary(), "tail", NAMES[0], "--from", "0", "--postgres-url",
                                db.relay_dsn], env=clean_environment(), stdout=subprocess.PIPE)
    process.stdout.close()
    insert_rows(db, "orders", 1, 3)
    assert process.wait(60) in (OK, FAILED, -signal.SIGPIPE)
    listing = subprocess.Popen([relay_binary(), "pipelines", "list", "--postgres-url", db.relay_dsn],
                               env=clean_environment(), stdout=subprocess.PIPE)
    listing.stdout.close()
    assert listing.wait(60) in (OK, FAILED, -signal.SIGPIPE)


# Live --------------------------------------------------------------------------------------


def test_tail_shows_rows_that_appear_change_and_go(orders, db):
    need(Tmux.is_here(), "tmux")
    set_outbox(db, "rows", to_file("orders", "/tmp/none"))
    with Tmux("tail", "rows", "--pretty", "--postgres-url", db.relay_dsn) as window:
        eventually(lambda: "0 messages" in window.screen(), 30 * SLOW_FACTOR)
        db.execute("insert into orders values (1, '最初の行', 1.50), (2, 'second', 2)")
        eventually(lambda: "最初の行" in window.screen() and "1.50" in window.screen(),
                   30 * SLOW_FACTOR, message=window.screen)
        db.execute("update orders set name = 'changed' where id = 2")
        eventually(lambda: "changed" in window.screen() and "second" not in window.screen(),
                   30 * SLOW_FACTOR, message=window.screen)
        db.execute("delete from orders where id = 1")
        eventually(lambda: "最初の行" not in window.screen(), 30 * SLOW_FACTOR,
                   message=window.screen)
        assert re.search(r"^3 messages, [0-9.]+/s; .* half within", window.screen(), re.M)
        db.execute("insert into orders select n, 'row ' || n || repeat(' long', 30), n"
                   " from generate_series(10, 99) n")
        for columns, lines in ((40, 10), (200, 50), (60, 24)):
            window.resize(columns, lines)
            eventually(lambda: "row 99" in window.screen() and "4 messages" in window.screen()
                       and max(map(width, window.screen().splitlines())) <= columns,
                       30 * SLOW_FACTOR, message=window.screen)
        window.press("C-z")
        window.press("C-c")
        # The last state stays on the usual screen.
        eventually(lambda: "ended with 0" in window.screen() and "row 99" in window.screen(),
                   30 * SLOW_FACTOR, message=window.screen)


def test_tail_without_a_terminal_that_can_show_it_prints_lines(orders, db):
    set_outbox(db, "rows", to_file("orders", "/tmp/none"))
    insert_rows(db, "orders", 1)
    for env in ({"TERM": "dumb"}, {"TERM": None}):
        code, text = on_terminal("tail", "rows", "--pretty", "--from", 0, "--count", 1,
                                 "--postgres-url", db.relay_dsn, env=env)
        assert code == OK and '"inserted"' in text and "\x1b" not in text
    piped = run_command("tail", "rows", "--pretty", "--from", 0, "--count", 1, "--postgres-url",
                        db.relay_dsn)
    assert piped.returncode == OK and '"inserted"' in piped.stdout


def test_quickstart_is_a_live_table(reachable_tmp):  # noqa: F811
    need(Tmux.is_here(), "tmux")
    with Tmux("quickstart", "--rate", 50, columns=100, lines=30,
              env={"TMPDIR": str(reachable_tmp)}) as window:
        eventually(lambda: re.search(r"^europe ", window.screen(), re.M)
                   and re.search(r"^\d+ messages", window.screen(), re.M), 120 * SLOW_FACTOR,
                   message=window.screen)
        # Each region has one row, however many deltas came.
        eventually(lambda: int(re.search(r"^(\d+) messages", window.screen(), re.M).group(1)) > 5,
                   60 * SLOW_FACTOR, message=window.screen)
        window.press("C-c")
        eventually(lambda: "ended with 0" in window.screen(), 60 * SLOW_FACTOR,
                   message=window.screen)
        assert "deltas delivered" in window.screen()


# Progress ----------------------------------------------------------------------------------


def test_a_replay_shows_its_progress_and_its_end(orders, db, tmp_path):
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path, rate_limit=20))
    env = url(db.login("relay_operator", "pgtrickle_admin"))
    insert_rows(db, "orders", 1, 30)
    replay = ["pipelines", "replay", "rows", "--from", 1]
    with Relay(db.relay_dsn):
        lines.wait_rows(list(range(1, 31)), deadline=60)
        code, text = on_terminal(*replay, env=env, timeout=120)
        assert code == OK and re.search(r"replaying \[#* *\] +\d+% \d+ of 30", text), text
        assert "is done" in plain(text).splitlines()[-1]
        lines.wait_rows(list(range(1, 31)) * 2, deadline=60)
        code, text = on_terminal(*replay, "--no-wait", env=env)
        assert code == OK and "under way" in text and "%" not in text
        lines.wait_rows(list(range(1, 31)) * 3, deadline=60)
    code, text = on_terminal(*replay, env=env)
    assert code == OK and "no relay is running" in text


def test_a_retry_of_dead_letters_waits_and_says_what_failed_again(orders, db):
    server = NatsServer(max_payload=4096).start()
    try:
        with server.client() as client:
            client.create_stream("s", "relay.>")
        set_outbox(db, "rows", to_nats("orders", server, "relay.rows", message="row"))
        db.execute("insert into orders values (1, repeat('a', 9000), 1), (2, repeat('b', 9000), 2)")
        env = url(db.login("relay_operator", "pgtrickle_admin"))
        with Relay(db.relay_dsn):
            eventually(lambda: db.one("select count(*) from pgtrickle.relay_dlq") == 2,
                       30 * SLOW_FACTOR)
            code, text = on_terminal("dlq", "retry", "--all", "rows", env=env)
            assert code == FAILED and "2 failed again" in text, text
            waited = run_command("dlq", "retry", "--all", "rows", "--wait", env=env)
            assert waited.returncode == FAILED and "sent again: 2" in waited.stdout
            assert run_command("dlq", "retry", "--all", "rows", env=env).returncode == OK
    finally:
        server.stop()


def test_an_interrupt_ends_the_waiting_and_not_the_work(orders, db, tmp_path):
    need(Tmux.is_here(), "tmux")
    lines = Lines(tmp_path / "rows.jsonl")
    set_outbox(db, "rows", to_file("orders", lines.path, rate_limit=5))
    insert_rows(db, "orders", 1, 20)
    with Relay(db.relay_dsn):
        lines.wait_rows(list(range(1, 21)), deadline=60)
        with Tmux("pipelines", "replay", "rows", "--from", 1,
                  env=url(db.login("relay_operator", "pgtrickle_admin"))) as window:
            eventually(lambda: "replaying" in window.screen(), 30 * SLOW_FACTOR,
                       message=window.screen)
            window.press("C-c")
            eventually(lambda: "the relay goes on" in window.screen()
                       and "ended with 0" in window.screen(), 30 * SLOW_FACTOR,
                       message=window.screen)
        lines.wait_rows(list(range(1, 21)) * 2, deadline=60)


def test_init_shows_its_progress(empty_db):
    code, text = on_terminal("init", env=url(empty_db.dsn), timeout=120)
    assert code == OK and re.search(r"installing \[#* *\] +\d+%", text), text
    assert plain(text).splitlines()[-1].endswith("were new or changed)")
    piped = run_command("init", env=url(empty_db.dsn), timeout=120)
    assert piped.stderr == ""
