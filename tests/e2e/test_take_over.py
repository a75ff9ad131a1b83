"""A group of relays goes on where another one ended."""

import json

import psycopg
import pytest

from support.pipelines import Lines, insert_rows, make_table, set_outbox, to_file, wait_settled
from support.relay import Relay, run_command
from support.waiting import eventually


def take_over(db, *arguments, to="new"):
    return run_command("pipelines", "take-over", *arguments, "--postgres-url", db.relay_dsn,
                       "--relay-group-id", to)


def test_a_new_group_sends_only_what_was_open(db, relay_bin, tmp_path):
    first, second = Lines(tmp_path / "a"), Lines(tmp_path / "b")
    for table, lines in (("orders", first), ("other", second)):
        make_table(db, table)
        set_outbox(db, f"p-{table}", to_file(table, lines.path))
    with Relay(db.relay_dsn):
        insert_rows(db, "orders", 1, 5)
        insert_rows(db, "other", 1, 2)
        first.wait_rows(range(1, 6))
        second.wait_rows([1, 2])
        refused = take_over(db, "--from", "default")
        assert refused.returncode == 1
        assert 'runs in group "default"' in refused.stderr
        assert "disable_relay('p-orders')" in refused.stderr
    insert_rows(db, "orders", 6, 3)
    done = take_over(db, "--from", "default", "--json")
    assert done.returncode == 0, done.stderr
    assert [(row["pipeline"], row["outbox"], row["result"], row["taken_position"], row["position"])
            for row in json.loads(done.stdout)] == [
        ("p-orders", "outbox_orders", "taken", 5, 5), ("p-other", "outbox_other", "taken", 2, 2)]
    with Relay(db.relay_dsn, relay_group_id="new"):
        insert_rows(db, "other", 3)
        first.wait_rows(range(1, 9))
        second.wait_rows([1, 2, 3])
        wait_settled(db, "p-orders", "orders", group="new")
        assert 'runs in group "new"' in take_over(db, "--from", "default").stderr

    # What it settled since stays settled.
    again = take_over(db, "--from", "default", "p-orders")
    assert again.returncode == 0 and "kept: it is as far, or further" in again.stdout
    with Relay(db.relay_dsn, relay_group_id="new") as relay:
        relay.wait_healthy(pipelines=2)
        insert_rows(db, "orders", 9)
        first.wait_rows(range(1, 10))
    assert db.execute("select relay_group_id, pipeline_id, last_change_id"
                      " from pgtrickle.relay_consumer_offsets order by 1, 2") == [
        ("default", "p-orders", 5), ("default", "p-other", 2),
        ("new", "p-orders", 9), ("new", "p-other", 3)]


def test_a_group_that_had_begun_anew_goes_on_without_sending_the_rest_again(
        db, relay_bin, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("orders", lines.path))
    insert_rows(db, "orders", 1, 8)
    with Relay(db.relay_dsn):
        lines.wait_rows(range(1, 9))
    # As if it had been stopped after three rows.
    db.execute("insert into pgtrickle.relay_consumer_offsets"
               " (relay_group_id, pipeline_id, incarnation, last_change_id)"
               " select 'new', pipeline_id, incarnation, 3 from pgtrickle.relay_consumer_offsets")
    assert take_over(db, "--from", "default").returncode == 0
    with Relay(db.relay_dsn, relay_group_id="new"):
        insert_rows(db, "orders", 9)
        lines.wait_rows(range(1, 10))


def test_what_a_killed_relay_left_open_is_sent_and_nothing_else_comes_twice(
        db, relay_bin, tmp_path):
    make_table(db)
    lines = Lines(tmp_path / "out")
    set_outbox(db, "p", to_file("orders", lines.path, batch_size=5, rate_limit=300))
    db.execute("do $$ begin for i in 1 .. 300 loop insert into orders values (i, 'x', i);"
               " commit; end loop; end $$")
    with Relay(db.relay_dsn) as relay:
        eventually(lambda: len(lines.rows()) >= 50, interval=0.001)
        relay.kill9()

        def taken():
            done = take_over(db, "--from", "default", "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)
    (told,) = eventually(taken, 15)  # refused while the database still counts it as alive
    with Relay(db.relay_dsn, relay_group_id="new"):
        wait_settled(db, "p", "orders", group="new")
    # One row is one outbox row here: what was settled came once, what was open came at least once.
    arrived = lines.rows()
    assert set(arrived) == set(range(1, 301))
    assert 0 < told["position"] < 300
    settled = [row for row in arrived if row <= told["position"]]
    assert settled == sorted(set(settled))


class Positions:
    """Positions of a pipeline `p` in the groups `old` and `new`, written by hand."""

    def __init__(self, db):
        self.db = db
        self.incarnation = db.one("select incarnation::text from pgtrickle.pgt_outbox_config")

    def set(self, group, change, row=0, skipped=None, mark=None):
        self.db.execute(
            "insert into pgtrickle.relay_consumer_offsets as o (relay_group_id, pipeline_id,"
            " incarnation, last_change_id, last_row, skipped, skipped_mark, owner_token)"
            " values (%s, 'p', %s, %s, %s, %s, %s, gen_random_uuid())",
            (group, self.incarnation, change, row, skipped, mark and f"{mark * 8}-0000-0000-0000"
             f"-{'0' * 12}"))

    def get(self, group):
        found = self.db.execute(
            "select last_change_id, last_row, skipped::text, left(skipped_mark::text, 1)"
            " from pgtrickle.relay_consumer_offsets where relay_group_id = %s", (group,))
        return found[0] if found else None

    def take(self, name=None):
        return self.db.execute("select result, taken_position, position, dead_letters"
                               " from pgtrickle.take_over_relay('old', 'new', %s)", (name,))

    def clear(self):
        self.db.execute("delete from pgtrickle.relay_consumer_offsets")


@pytest.fixture
def positions(db, orders):
    return Positions(db)


POSITIONS = [  # of the old and the new group, what becomes of the latter
    ((7, 3), None, "taken", (7, 3, None, None)),
    ((7,), (7,), "kept", (7, 0, None, None)),
    ((7,), (9,), "kept", (9, 0, None, None)),
    ((7,), (7, 2), "kept", (7, 2, None, None)),
    ((7, 5), (7, 2), "taken", (7, 5, None, None)),
    ((7,), (6, 900), "taken", (7, 0, None, None)),
    # Either group began at "latest": what one of them skips is not sent.
    ((7, 0, "{[9,11)}", "a"), (2,), "taken", (7, 0, "{[9,11)}", "a")),
    ((7,), (2, 0, "{[3,5),[9,11)}", "b"), "taken", (7, 0, "{[3,5),[9,11)}", "b")),
    ((7,), (2, 0, "{[3,5)}", "b"), "taken", (7, 0, None, None)),
    ((7, 0, "{[9,15)}", "a"), (2, 0, "{[10,12)}", "b"), "taken", (7, 0, "{[9,15)}", "a")),
    ((7, 0, "{[9,10)}", "a"), (2, 0, "{[12,14)}", "b"), "taken", (7, 0, "{[9,10),[12,14)}", "b")),
]


def test_a_position_goes_to_the_others_or_stays(positions):
    for old, new, result, after in POSITIONS:
        positions.clear()
        positions.set("old", *old)
        if new:
            positions.set("new", *new)
        before = positions.get("old")
        (told, taken, position, _), = positions.take()
        assert (told, taken, position) == (result, old[0], after[0]), (old, new)
        assert positions.get("new") == after, (old, new)
        assert positions.get("old") == before


def test_a_stale_owner_of_either_group_moves_nothing_any_more(db, positions):
    positions.set("old", 7)
    positions.set("new", 2)
    tokens = dict(db.execute(
        "select relay_group_id, owner_token from pgtrickle.relay_consumer_offsets"))
    positions.take()
    for group, token in tokens.items():
        assert not db.one(
            "select pgtrickle.relay_commit_position(%s, 'p', %s, %s, 20, 0, null)",
            (group, positions.incarnation, token)), group
    assert (positions.get("old")[0], positions.get("new")[0]) == (7, 7)


def test_unresolved_dead_letters_go_along(db, positions):
    positions.set("old", 7)
    db.execute("insert into pgtrickle.relay_dlq (relay_group_id, pipeline, message_id, payload,"
               " resolved_at) values ('old', 'p', 'open', 'x', null), ('old', 'p', 'done', 'x',"
               " now()), ('old', 'p', 'both', 'x', null), ('new', 'p', 'both', 'x', null),"
               " ('old', 'broker', 'open', 'x', null)")
    assert positions.take("p") == [("taken", 7, 7, 1)]
    assert positions.take() == [(None, None, None, 1), ("kept", 7, 7, 0)]
    assert db.execute("select relay_group_id, pipeline, message_id from pgtrickle.relay_dlq"
                      " order by 1, 2, 3") == [
        ("new", "broker", "open"), ("new", "p", "both"), ("new", "p", "open"),
        ("old", "p", "both"), ("old", "p", "done")]


def test_nothing_is_taken_from_or_given_to_a_relay_that_runs_the_pipeline(db, positions):
    for group in ("old", "new", "a group of its own"):
        positions.clear()
        positions.set("old", 7)
        with db.connect() as owner:
            def lease(name):
                token = owner.execute("select pgtrickle.relay_open_leases(%s, 'w', '60 s')",
                                      (group,)).fetchone()[0]
                assert owner.execute("select pgtrickle.relay_take_leases(%s, 'pipeline', %s, 9)",
                                     (token, [name])).fetchall()
                return token

            token = lease("q")
            if group == "old":
                with pytest.raises(psycopg.errors.ObjectInUse, match='"q" runs in group "old"'):
                    positions.take()
            assert positions.take("p") == [("taken", 7, 7, 0)], "another pipeline is run there"
            owner.execute("select pgtrickle.relay_close_leases(%s)", (token,))
            token = lease("p")
            if group not in ("old", "new"):  # it claims the position under the group of its options
                owner.execute("select pgtrickle.relay_claim_position('old', 'p', %s, 'w', '0')",
                              (positions.incarnation,))
            db.execute("update pgtrickle.relay_consumer_offsets set last_change_id = 9"
                       " where relay_group_id = 'old'")
            with pytest.raises(psycopg.errors.ObjectInUse, match=f'"p" runs in group "{group}"'):
                positions.take()
            assert positions.get("new")[0] == 7
            owner.execute("select pgtrickle.relay_close_leases(%s)", (token,))
            assert positions.take() == [("taken", 9, 9, 0)]


def test_a_relay_that_begins_meanwhile_waits(db, positions):
    claim = "select last_change_id from pgtrickle.relay_claim_position(%s, 'p', %s, 'w', '0')"
    for begun in (True, False):
        positions.clear()
        positions.set("old", 7)
        if begun:
            positions.set("new", 2)
        with db.connect(autocommit=False) as taking, db.connect() as relay:
            taking.execute("select pgtrickle.take_over_relay('old', 'new')")
            relay.execute("set lock_timeout = '100ms'")
            for group in ("old", "new"):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    relay.execute(claim, (group, positions.incarnation))
            taking.commit()
            assert relay.execute(claim, ("new", positions.incarnation)).fetchone() == (7,)


def test_a_refused_take_over_gives_its_reason(db, positions, relay_bin):
    positions.set("old", 7)
    for statement, told in [
            ("select pgtrickle.take_over_relay('absent', 'new')", "nothing to take over"),
            ("select pgtrickle.take_over_relay('old', 'new', 'q')", 'of pipeline "q"'),
            ("select pgtrickle.take_over_relay('old', 'old')", "cannot take over"),
            ("select pgtrickle.take_over_relay(null, 'new')", "cannot take over"),
            ("begin isolation level repeatable read;"
             "select pgtrickle.take_over_relay('old', 'new')", "READ COMMITTED")]:
        with db.connect() as connection, pytest.raises(psycopg.Error, match=told):
            connection.execute(statement)
    done = take_over(db, "--from", "absent")
    assert done.returncode == 1 and "Groups with positions: old" in done.stderr, done.stderr
    assert positions.get("new") is None
