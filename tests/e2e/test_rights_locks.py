"""No promise rests on a lock that another role can take: a lease row says who owns a pipeline."""

import hashlib
import json
import struct
import threading
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from support.pipelines import (SLOW_FACTOR, Lines, insert_rows, make_table, set_outbox, to_file,
                               wait_settled)
from support.postgres import RELAY_ROLE
from support.relay import Relay, run_command
from support.waiting import eventually, holds_for

STRANGER = "locks_stranger"  # a login without any right of ours
SECOND_RELAY = "locks_second_relay"


def owned(relay):
    return relay.health()[1]["pipelines_owned"]


@pytest.fixture
def lines(db, relay_bin, tmp_path):
    make_table(db)
    set_outbox(db, "rows", to_file("orders", tmp_path / "out.jsonl"))
    return Lines(tmp_path / "out.jsonl")


# Advisory locks

def keys_of(group, pipelines):
    """The keys by which earlier versions owned pipelines, leadership and housekeeping."""
    names = [(group, name) for name in [*pipelines, ""]] + [("", "housekeeping")]
    for one, two in names:
        text = f"{len(one)}:{one}{len(two)}:{two}"
        yield struct.unpack(">q", hashlib.md5(text.encode()).digest()[:8])[0]


TAKE_NAMED = """
select pg_try_advisory_lock_shared(hashtextextended(name, 0)), pg_try_advisory_lock(hashtext(name))
from unnest(array['pgtrickle housekeeping', 'pgtrickle retention', 'pgtrickle outbox catalog',
                  'pgtrickle relay rows', 'pgtrickle-relay init', 'pgtrickle.dirty']) name
"""
SEEN = """
select distinct (classid::bigint << 32) | objid::bigint
from pg_locks join pg_stat_activity a using (pid)
where locktype = 'advisory' and objsubid = 1 and granted and a.usename <> current_user
  and database = (select oid from pg_database where datname = current_database())
"""


@contextmanager
def stranger_with_all_locks(db, group="default", pipelines=("rows",)):
    """A login without rights that holds every advisory lock of the group, and queues for those that
    are held now: when their holders go, it has them too."""
    dsn = db.login(STRANGER)
    with ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        holder.execute(TAKE_NAMED)
        seen = [row[0] for row in holder.execute(SEEN)]
        for key in keys_of(group, pipelines):
            holder.execute("select pg_try_advisory_lock(%s)", (key,))
        queued = []
        for key in seen:
            waiting = psycopg.connect(dsn, autocommit=True)
            thread = threading.Thread(target=_wait_for, args=(waiting, key), daemon=True)
            thread.start()
            queued.append((waiting, thread))
        eventually(lambda: db.one(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database())")
            == len(seen))
        yield
        for waiting, thread in queued:
            waiting.cancel()
            thread.join(10)
            waiting.close()


def _wait_for(connection, key):
    try:
        connection.execute("select pg_advisory_lock(%s)", (key,))
    except psycopg.Error:
        pass


def test_a_login_that_holds_all_advisory_locks_stops_nothing(db, lines):
    db.execute("create table old (id int primary key)")
    db.execute("select pgtrickle.enable_outbox('old')")
    db.execute("insert into pgtrickle.outbox_old (created_at, payload)"
               " values (now() - interval '2 days', '{}')")
    with stranger_with_all_locks(db):
        with Relay(db.relay_dsn) as one:
            insert_rows(db, "orders", 1, 3)
            lines.wait_rows(range(1, 4))
            eventually(lambda: db.one("select count(*) from pgtrickle.outbox_old") == 0,
                       message=one.log)
            with stranger_with_all_locks(db), Relay(db.relay_dsn) as two:
                two.wait_up()
                eventually(lambda: "2" == str(db.one(
                    "select count(*) from pgtrickle.relay_lease_sessions")))
                victim, heir = (one, two) if owned(one) else (two, one)
                wait_settled(db, "rows", "orders")
                victim.kill9()
                insert_rows(db, "orders", 4)
                lines.wait_rows(range(1, 5))
                eventually(lambda: owned(heir) == 1, 4 * SLOW_FACTOR)


@pytest.mark.parametrize("ha_mode", ["shared", "leader"])
def test_relays_with_different_database_roles_take_over_from_each_other(db, lines, ha_mode):
    second = db.login(SECOND_RELAY, "pgtrickle_relay")
    options = {"ha_mode": ha_mode, "lease_timeout": "2s"}
    with Relay(db.relay_dsn, **options) as one:
        eventually(lambda: owned(one) == 1)
        with Relay(second, **options) as two:
            two.wait_healthy(pipelines=0)
            one.freeze()  # its database session stays, and may not be ended by the other's role
            eventually(lambda: owned(two) == 1, message=two.log)
            one.thaw()
            eventually(lambda: owned(one) == 0, message=one.log)
            insert_rows(db, "orders", 1)
            lines.wait_rows([1])
            wait_settled(db, "rows", "orders")
            two.kill9()
            insert_rows(db, "orders", 2)
            lines.wait_rows([1, 2])
            eventually(lambda: owned(one) == 1)


# The lease functions

class Session:
    """A lease session as a relay has it."""

    def __init__(self, db, worker, lease="5 s", group="g", user=RELAY_ROLE):
        self.worker = worker
        self.connection = db.connect(user=user)
        self.token = self._one("select pgtrickle.relay_open_leases(%s, %s, %s::interval)",
                               (group, worker, lease))

    def _one(self, statement, parameters):
        return self.connection.execute(statement, parameters).fetchone()[0]

    def renew(self):
        return sorted(tuple(row) for row in self.connection.execute(
            "select worker_id, state from pgtrickle.relay_renew_leases(%s)", (self.token,)))

    def take(self, *names, most=100, kind="pipeline", token=None):
        return [row[0] for row in self.connection.execute(
            "select pgtrickle.relay_take_leases(%s, %s, %s, %s)",
            (token or self.token, kind, list(names), most))]

    def release(self, *names, token=None):
        self.connection.execute("select pgtrickle.relay_release_leases(%s, 'pipeline', %s)",
                                (token or self.token, list(names)))

    def close(self, token=None):
        self.connection.execute("select pgtrickle.relay_close_leases(%s)", (token or self.token,))

    def hang_up(self):
        pid = self.connection.info.backend_pid
        self.connection.close()
        return pid


def ended(db, pid):
    return lambda: db.one("select count(*) from pg_stat_activity where pid = %s", (pid,)) == 0


def owners(db):
    return dict(db.execute("select l.name, s.worker_id from pgtrickle.relay_leases l"
                           " join pgtrickle.relay_lease_sessions s using (token)"))


def test_a_lease_has_one_owner_until_that_gives_it_up(db):
    one, two = Session(db, "one"), Session(db, "two")
    assert one.take("a", "b") == ["a", "b"]
    assert two.take("a", "b", "c", most=2) == ["c"]
    one.release("a")
    assert two.take("a", "b") == ["a"]
    one.close()
    assert two.take("b") == ["b"] and one.renew() == []


def test_leases_are_free_once_the_session_is_gone(db):
    one, two = Session(db, "one", lease="1 hour"), Session(db, "two")
    one.take("a")
    eventually(ended(db, one.hang_up()))
    assert two.renew() == [("one", "gone"), ("two", "live")]
    assert two.take("a") == ["a"]


def test_leases_are_free_once_a_pooler_hands_the_session_to_another_client(db):
    one, two = Session(db, "one", lease="1 hour"), Session(db, "two")
    one.take("a")
    one.connection.execute("discard all")
    assert two.renew() == [("one", "gone"), ("two", "live")]
    assert one.renew() == [] and two.take("a") == ["a"]


def test_a_lock_on_the_mark_of_a_session_that_is_gone_keeps_nothing(db):
    one, two = Session(db, "one", lease="1 hour"), Session(db, "two")
    one.take("a")
    with stranger_with_all_locks(db):
        eventually(ended(db, one.hang_up()))
        assert ("one", "gone") in two.renew()
        assert two.take("a") == ["a"]


def test_leases_run_out_by_the_owners_lease_timeout_and_its_renewal_comes_too_late(db):
    one, two = Session(db, "one", lease="1 s"), Session(db, "two", lease="1 ms")
    one.take("a")
    eventually(lambda: ("one", "expired") in two.renew())
    assert two.take("a") == ["a"]
    assert one.renew() == [] and one.take("b") == []
    one.release("a")
    assert owners(db) == {"a": "two"}


def test_a_session_that_was_late_keeps_its_leases_where_no_other_took_them(db):
    one = Session(db, "one", lease="1 ms")
    one.take("a")
    assert one.renew() == [("one", "live")] and owners(db) == {"a": "one"}


def test_a_renewal_under_way_is_never_overtaken(db):
    one, two = Session(db, "one", lease="1 ms"), Session(db, "two")
    one.take("a")
    one.connection.autocommit = False
    one.renew()
    holds_for(lambda: two.renew() == [("one", "live"), ("two", "live")], 0.1)
    one.connection.commit()
    eventually(lambda: ("one", "expired") in two.renew())


def test_relays_that_race_for_leases_never_share_one(db):
    names = [f"p{number}" for number in range(60)]
    sessions = [Session(db, f"w{number}") for number in range(6)]
    taken = [None] * len(sessions)

    def race(number):
        taken[number] = sessions[number].take(*reversed(names), most=25)
    threads = [threading.Thread(target=race, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(taken, [])) == sorted(names)
    assert max(map(len, taken)) <= 25
    assert owners(db) == {name: sessions[number].worker
                          for number in range(len(sessions)) for name in taken[number]}


def test_a_token_is_worth_nothing_in_another_session(db):
    one, two = Session(db, "one"), Session(db, "two", user=RELAY_ROLE)
    one.take("a")
    assert list(two.connection.execute("select * from pgtrickle.relay_renew_leases(%s)",
                                       (one.token,))) == []
    assert two.take("b", token=one.token) == []
    two.release("a", token=one.token)
    two.close(token=one.token)
    assert owners(db) == {"a": "one"}


def test_a_relay_whose_lease_another_one_holds_cannot_fence_it(db):
    claim = ("select owner_token from pgtrickle.relay_claim_position("
             "'g', 'a', '00000000-0000-0000-0000-000000000001', %s, '1')")
    stale, owner = Session(db, "stale", lease="1 ms"), Session(db, "owner")
    stale.take("a")
    stale.connection.execute(claim, ("stale",))
    eventually(lambda: ("stale", "expired") in owner.renew())
    owner.take("a")
    owner.connection.execute(claim, ("owner",))
    with pytest.raises(psycopg.errors.ObjectInUse, match="owner"):
        stale.connection.execute(claim, ("stale",))


def test_nothing_is_taken_beside_a_relay_that_owns_by_advisory_locks(db):
    db.execute("insert into pgtrickle.relay_instances (relay_group_id, worker_id, lock_backend_pid)"
               " values ('g', 'old', 1), ('other', 'old too', 1)")
    one = Session(db, "one")
    assert one.take("a") == [] and ("old", "older") in one.renew()
    assert one.take("", kind="housekeeping") == [""]
    db.execute("delete from pgtrickle.relay_instances where relay_group_id = 'g'")
    assert one.take("a") == ["a"] and one.renew() == [("one", "live")]


@pytest.mark.parametrize("statement", [
    "insert into pgtrickle.relay_lease_sessions (token, relay_group_id, worker_id, backend_pid,"
    " lease_timeout) values (gen_random_uuid(), 'g', 'w', 1, '1 h')",
    "update pgtrickle.relay_lease_sessions set renewed_at = now() - interval '1 day'",
    "delete from pgtrickle.relay_lease_sessions",
    "delete from pgtrickle.relay_leases",
    "select from pgtrickle.relay_leases for update",
    "lock table pgtrickle.relay_leases in row share mode",
    "lock table pgtrickle_internal.locks in row exclusive mode",
    "select from pgtrickle_internal.locks for update",
    "select pgtrickle_internal.try_lock('housekeeping')",
    "select pgtrickle_internal.end_lease_sessions(gen_random_uuid())",
])
def test_the_relay_writes_leases_and_takes_turns_by_functions_only(db, statement):
    with db.connect(user=RELAY_ROLE, autocommit=False) as relay, \
            pytest.raises(psycopg.errors.InsufficientPrivilege):
        relay.execute(statement)


@pytest.mark.parametrize("call", [
    "relay_open_leases('g', 'w', '1 s')", "relay_renew_leases(gen_random_uuid())",
    "relay_take_leases(gen_random_uuid(), 'pipeline', '{a}', 1)", "relay_housekeeping()",
    "relay_release_leases(gen_random_uuid(), 'pipeline', '{a}')", "pgtrickle_internal.lock('housekeeping')",
    "relay_close_leases(gen_random_uuid())", "relay_blockers()"])
def test_a_plain_login_may_call_none_of_it(db, call):
    with psycopg.connect(db.login(STRANGER)) as stranger, \
            pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute(f"select {call if '.' in call.split('(')[0] else 'pgtrickle.' + call}")


# Locks on our tables

def outbox_locks(db, user, dsn):
    """The modes in which that role may lock the outbox of orders."""
    allowed = []
    for mode in ("access share", "row share", "row exclusive", "share update exclusive", "share",
                 "share row exclusive", "exclusive", "access exclusive"):
        with psycopg.connect(dsn, autocommit=False) as connection:
            try:
                connection.execute(f"lock table pgtrickle.outbox_orders in {mode} mode")
                allowed.append(mode)
            except psycopg.errors.InsufficientPrivilege:
                pass
            connection.rollback()
    return allowed


def test_who_may_lock_an_outbox(db):
    make_table(db)
    for role in ("pgtrickle_relay", "pgtrickle_admin"):
        dsn = db.login(f"locks_{role}", role)
        assert outbox_locks(db, role, dsn) == ["access share"]
    for role in ("pgtrickle_publisher", None):
        dsn = db.login(f"locks_{role or STRANGER}", *([role] if role else []))
        with psycopg.connect(db.dsn) as superuser:
            superuser.execute(f"grant usage on schema pgtrickle to locks_{role or STRANGER}")
        assert outbox_locks(db, role, dsn) == []


def test_a_session_that_reads_an_outbox_for_ever_blocks_neither_readers_nor_retention(db, lines):
    db.execute("update pgtrickle.pgt_outbox_config set retention_hours = 0")
    with Relay(db.relay_dsn), db.connect(autocommit=False, user=RELAY_ROLE) as reader:
        reader.execute("lock table pgtrickle.outbox_orders in access share mode")
        insert_rows(db, "orders", 1, 3)
        lines.wait_rows([1, 2, 3])
        eventually(lambda: db.one("select pgtrickle.relay_housekeeping()")
                   and db.one("select count(*) from pgtrickle.outbox_orders") == 0)


# Who blocks is named

LOCKED = {
    "lock table pgtrickle.outbox_orders in share mode": "ShareLock on pgtrickle.outbox_orders",
    "select pgtrickle_internal.lock('housekeeping')": "RowShareLock on pgtrickle_internal.locks",
    "select from pgtrickle.relay_lease_sessions for update":
        "RowShareLock on pgtrickle.relay_lease_sessions",
}


def check(db):
    done = run_command("check", "--json", "--postgres-url", db.relay_dsn)
    return [finding for finding in json.loads(done.stdout)["findings"] if not finding["ok"]]


@pytest.mark.parametrize("blocking", [
    list(LOCKED)[:2], list(LOCKED)[2:],
], ids=["a table lock and the turn of housekeeping", "the leases"])
def test_a_session_that_blocks_is_named_in_health_and_check(db, lines, blocking):
    with Relay(db.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        assert check(db) == [] and "blocked_by" not in relay.health()[1]
        with db.connect(autocommit=False, application_name="nightly job") as blocker:
            for statement in blocking:
                blocker.execute(statement)
            pid = blocker.info.backend_pid
            found = eventually(lambda: check(db), 10)
            assert f"session {pid} (nightly job) of the role postgres" in found[0]["message"]
            assert f"pg_terminate_backend({pid})" in found[0]["remedy"]
            entry = eventually(lambda: relay.health()[1].get("blocked_by"), 20,
                               message=relay.log)[0]
            assert (entry["pid"], entry["role"], entry["application"]) == (
                pid, "postgres", "nightly job")
            for statement in blocking:
                assert LOCKED[statement] in entry["holds"]
            assert relay.health()[1]["status"] in ("degraded", "unhealthy")
        relay.wait_healthy(pipelines=1, deadline=30)
        assert check(db) == [] and "blocked_by" not in relay.health()[1]


@pytest.mark.parametrize("table", ["pgtrickle_internal.outbox_config",
                                   "pgtrickle.relay_consumer_offsets"])
def test_check_waits_a_moment_for_a_lock_and_names_who_holds_it(db, lines, table):
    with db.connect(autocommit=False) as blocker:
        blocker.execute(f"lock table {table} in access exclusive mode")
        told = check(db)
        pid = blocker.info.backend_pid
    assert any(f"session {pid}" in each["message"] and table in each["message"] for each in told)
    for each in told:
        assert f"session {pid}" in each["message"] or "due to lock timeout" in each["message"]
        assert "the transaction that holds the lock" in each["remedy"] or str(pid) in each["remedy"]


def test_a_prepared_transaction_that_blocks_is_named(db, relay_bin):
    make_table(db)
    with db.connect(autocommit=False) as blocker:
        blocker.execute("lock table pgtrickle.outbox_orders in share mode")
        blocker.execute("prepare transaction 'forgotten'")
    try:
        found = eventually(lambda: check(db), 10)
        assert 'the prepared transaction "forgotten" of the role postgres' in found[0]["message"]
    finally:
        db.execute("rollback prepared 'forgotten'")


def test_a_blocker_is_named_where_the_age_of_its_transaction_may_not_be_seen(own_db, relay_bin):
    make_table(own_db)
    own_db.execute("revoke pg_read_all_stats from pgtrickle_observer")
    dsn = own_db.login("locks_owner_like", "pgtrickle_owner")
    with psycopg.connect(dsn, autocommit=False) as blocker:
        blocker.execute("lock table pgtrickle.outbox_orders in share mode")
        found = check(own_db)
        assert f"session {blocker.info.backend_pid}" in found[0]["message"]
