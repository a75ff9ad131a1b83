"""What becomes of a message that PostgreSQL does not take: a dead letter, or another try."""

import json
import shutil

import pytest

from support.fixtures import need
from support.inboxes import count, wait_count
from support.pipelines import SLOW_FACTOR, set_outbox
from support.redis_server import RedisServer
from support.relay import Relay
from support.waiting import eventually, holds_for
from support.writers import dead_letters, wait_trouble

TABLE = "create table {name} (event_id text primary key, payload jsonb)"


def raising(code, using=""):
    return f"raise exception 'five is not welcome' using errcode = '{code}'{using}"


# What the fifth of nine messages meets in a trigger, and the SQLSTATE of the dead letter that it
# becomes, whatever the SQLSTATE usually means.
AT_ONCE = {
    "raises_u0001": (raising("U0001"), "U0001"),
    "raises_55000": (raising("55000"), "55000"),
    "raises_42501": (raising("42501"), "42501"),
    "raises_0a000": (raising("0A000"), "0A000"),
    "raises_xx000": (raising("XX000"), "XX000"),
    "raises_p0002": (raising("P0002"), "P0002"),
    "raises_23505": (raising("23505"), "23505"),
    "raises_own": (raising("ABCDE"), "ABCDE"),
    "raises_3d000": (raising("3D000"), "3D000"),
    "asserts": ("assert false", "P0004"),
    "no_table": ("execute 'select from no_such_table'", "42P01"),
    "no_right": ("insert into public.forbidden values (1)", "42501"),
    "no_function": ("execute 'select no_such_function()'", "42883"),
    "no_execute": ("perform pg_stat_file('x')", "42501"),
}
# What may be a moment's trouble that the trigger passes on is tried for some seconds.
AFTER_TRIES = {f"raises_{code}".lower(): (raising(code), code)
               for code in ("40001", "57014", "53100", "53400", "57P01", "25006", "08006")}


def make_pipeline(db, name, ddl=TABLE, on_reject="dlq", **sink):
    """An outbox of events, and a pipeline from it into a table, all of this name."""
    db.execute(ddl.format(name=name))
    db.execute(f"grant select, insert on {name} to pgtrickle_relay")
    db.execute("select pgtrickle.create_outbox(%s)", (name,))
    set_outbox(db, name, {"stream_table": name, "message": "row", "retry_max": "1s",
                          "on_reject": on_reject, "sink": {
        "type": "pg-inbox", "inbox_table": f"public.{name}", **sink}})


def on_five(db, name, statement, when="before"):
    """A trigger that does this with a message whose payload is 5."""
    db.execute(f"""create function {name}() returns trigger language plpgsql as $$ begin
        if new.payload = '5' or new.payload ->> 'n' = '5' then {statement}; end if;
        return new; end $$""")
    db.execute(f"create trigger t {when} insert on {name} for each row execute function {name}()")


def publish(db, name, *payloads):
    db.execute("select pgtrickle.publish(%s, payload) "
               "from unnest(%s::jsonb[]) with ordinality p (payload, n) order by n",
               (name, [json.dumps(payload) for payload in payloads]))


def letters(db, name):
    return [(code, payload) for _, code, _, payload in dead_letters(db, name)]


def test_a_row_that_is_refused_is_a_dead_letter_whatever_the_sqlstate(db, relay):
    db.execute("create table forbidden (n int)")
    cases = AT_ONCE | AFTER_TRIES
    for name, (statement, _) in cases.items():
        make_pipeline(db, name)
        on_five(db, name, statement, "after" if name == "no_right" else "before")
        publish(db, name, *range(1, 10))
    make_pipeline(db, "policy", TABLE + "; alter table {name} enable row level security;"
                  "create policy all_rows on {name} using (true) with check (true);"
                  "create policy \"not Five\" on {name} as restrictive with check (payload <> '5')")
    publish(db, "policy", *range(1, 10))
    make_pipeline(db, "takes_for_ever", operation_timeout="1s")
    on_five(db, "takes_for_ever", "perform pg_sleep(1000)")
    publish(db, "takes_for_ever", *range(1, 10))
    with relay:
        for name, (_, code) in {"policy": ("", "42501"), **cases,
                                "takes_for_ever": ("", "timeout")}.items():
            wait_count(db, 8, relay, name, deadline=40)
            eventually(lambda: letters(db, name) == [(code, "5")], 20,
                       message=lambda: f"{name}: {dead_letters(db, name)}\n{relay.log(30)}")
        (_, _, message, _), = dead_letters(db, "policy")
        assert '"not Five"' in message
        # One message at a time, with nothing behind it to compare it with.
        for name, (_, code) in AT_ONCE.items():
            publish(db, name, {"n": 5})
        for name, (_, code) in AT_ONCE.items():
            eventually(lambda: [found for found, _ in letters(db, name)] == [code, code], 20,
                       message=lambda: f"{name}: {dead_letters(db, name)}\n{relay.log(30)}")
            publish(db, name, {"n": 6})
            wait_count(db, 9, relay, name)


@pytest.mark.parametrize("others", ["stored_already", "come_later"])
def test_a_refused_message_is_compared_with_others_of_its_source(db, relay, others):
    """Two are refused, and nothing was written since the relay started. The others are stored, as
    after a crash between commit and acknowledgement; or they come when the pipeline waits."""
    need(shutil.which("redis-server"), "redis-server")
    db.execute(TABLE.format(name="guarded"))
    db.execute("""grant select, insert on guarded to pgtrickle_relay;
        alter table guarded enable row level security;
        create policy r on guarded for select using (true);
        create policy w on guarded for insert with check (payload ->> 'n' <> 'poison')""")
    redis = RedisServer(durable=False).start()
    try:
        client = redis.client()

        def publish_to_redis(messages):
            for identity, n in messages.items():
                client.xadd("s", {"my_id": identity, "payload": json.dumps({"n": n})})
        if others == "stored_already":
            db.execute("""insert into guarded values ('a', '{"n": "a"}'), ('b', '{"n": "b"}'),
                ('x', '{"n": "another"}'), ('y', '{"n": "another"}')""")
            publish_to_redis({"x": "poison", "a": "a", "y": "poison", "b": "b"})
        else:
            publish_to_redis({"x": "poison", "y": "poison"})
        db.execute("select pgtrickle.set_relay_inbox('guarded', config => %s::jsonb, "
                   "enabled => true)", (json.dumps({
                       "retry_max": "300ms",
                       "source": {"type": "redis", "url": redis.url, "stream_key": "s",
                                  "group": "g", "id_from": "header:my_id"},
                       "sink": {"type": "inbox", "inbox_table": "public.guarded"}}),))
        with relay:
            if others == "come_later":
                wait_trouble(relay, db, "guarded", "row-level security", remedy="POLICY")
                publish_to_redis({"a": "a", "b": "b"})
            eventually(lambda: len(dead_letters(db, "guarded")) == 2, 50 * SLOW_FACTOR,
                       message=lambda: f"{relay.pipeline('guarded')}\n{relay.log(30)}")
            eventually(lambda: client.xpending("s", "g")["pending"] == 0, 20 * SLOW_FACTOR)
        assert db.execute("select message_id, error_code from pgtrickle.relay_dlq "
                          "order by message_id") == [("x", "42501"), ("y", "42501")]
        assert db.execute("select event_id from guarded where payload ->> 'n' = event_id "
                          "order by 1") == [("a",), ("b",)]
    finally:
        redis.stop()


# What is wrong with a table: its DDL, what the pipeline's error and its remedy say, and the remedy.
WRONG = {
    "audited": ("", "permission denied for table audit", "GRANT to it what the message names",
                "grant insert on audit to pgtrickle_relay"),
    "audited_later": ("", "permission denied for table audit", "GRANT to it what the message names",
                      "grant insert on audit to pgtrickle_relay"),
    "numbered": ("create sequence numbers; alter table {name} add n int default nextval('numbers')",
                 "draws its default from the sequence public.numbers",
                 "GRANT USAGE ON SEQUENCE public.numbers TO relay_daemon;",
                 "grant usage on sequence numbers to pgtrickle_relay"),
    "guarded": ("alter table {name} enable row level security", "has row security, and no policy",
                "CREATE POLICY", "create policy p on guarded using (true) with check (true)"),
}


def test_what_is_wrong_with_the_table_is_no_dead_letter_and_comes_with_its_remedy(db, relay):
    db.execute("create table audit (n int)")
    for name, (ddl, *_) in WRONG.items():
        make_pipeline(db, name, TABLE + ";" + ddl)
        publish(db, name, *range(1, 4))
    db.execute("create function log_it() returns trigger language plpgsql as $$ begin "
               "insert into public.audit values (1); return new; end $$")
    db.execute("create trigger t after insert on audited for each row execute function log_it()")
    db.execute("create constraint trigger t after insert on audited_later deferrable initially "
               "deferred for each row execute function log_it()")
    with relay:
        for name, (_, says, remedy, _) in WRONG.items():
            wait_trouble(relay, db, name, says, remedy)
        holds_for(lambda: all(letters(db, name) == [] for name in WRONG), 1)
        for name, (*_, mend) in WRONG.items():
            db.execute(mend)
        for name in WRONG:
            wait_count(db, 3, relay, name)
            assert letters(db, name) == []


def test_a_right_that_is_lost_in_the_middle_of_a_batch_costs_no_message(db, relay):
    make_pipeline(db, "halfway", rows_per_statement=2)
    db.execute("create function wait() returns trigger language plpgsql as $$ begin "
               "perform pg_advisory_xact_lock(1); return new; end $$")
    db.execute("create trigger t before insert on halfway for each row execute function wait()")
    with db.connect(autocommit=False) as blocker:
        blocker.execute("select pg_advisory_xact_lock(1)")
        publish(db, "halfway", *range(1, 8))
        with relay:
            eventually(lambda: db.one("select 1 from pg_locks where not granted"), 20,
                       message=relay.log)
            db.execute("revoke insert on halfway from pgtrickle_relay")
            blocker.rollback()
            wait_trouble(relay, db, "halfway", "may not write", "GRANT SELECT, INSERT ON")
            assert count(db, "halfway") == 2 and letters(db, "halfway") == []
            db.execute("grant insert on halfway to pgtrickle_relay")
            wait_count(db, 7, relay, "halfway")
            assert letters(db, "halfway") == []


def test_contention_with_applications_is_no_dead_letter(db, relay):
    """The relay is chosen as the victim of a deadlock; a lock is not granted at once; a statement
    is cancelled. Then the application ends."""
    db.execute("create table gate ()")
    db.execute("grant update on gate to pgtrickle_relay")
    for name, code in {"deadlock": "perform pg_advisory_xact_lock((new.payload ->> 'n')::int)",
                       "no_wait": "lock table public.gate nowait"}.items():
        make_pipeline(db, name)
        db.execute(f"create function {name}() returns trigger language plpgsql as $$ begin {code};"
                   " return new; end $$")
        db.execute(f"create trigger t before insert on {name} for each row "
                   f"execute function {name}()")
    with db.connect(autocommit=False) as application:
        application.execute("set deadlock_timeout = '1min'")  # the other one finds it
        application.execute("select pg_advisory_xact_lock(3)")
        application.execute("lock table gate in share mode")
        for name in ("deadlock", "no_wait"):
            publish(db, name, *({"n": number} for number in range(1, 6)))
        with relay:
            def waits(key):
                return db.one("select pid from pg_locks where locktype = 'advisory' "
                              "and objid = %s and not granted", (key,))
            eventually(lambda: waits(3), 20, message=relay.log)
            application.execute("savepoint s")
            application.execute("select pg_advisory_xact_lock(1)")
            application.execute("rollback to s")
            wait_trouble(relay, db, "no_wait", "could not obtain lock", "pg_blocking_pids")
            db.execute("select pg_cancel_backend(%s)", (eventually(lambda: waits(3)),))
            eventually(lambda: "(transient, 57014)" in relay.log(), 20, message=relay.log)
            application.rollback()
            for name in ("deadlock", "no_wait"):
                wait_count(db, 5, relay, name)
                assert letters(db, name) == []


def test_a_session_that_became_read_only_is_not_used_again(db, relay):
    make_pipeline(db, "hits")
    on_five(db, "hits", "perform set_config('default_transaction_read_only', 'on', false)")
    with relay:
        for number in range(1, 10):
            publish(db, "hits", number)
            wait_count(db, number, relay, "hits")
    assert letters(db, "hits") == []


SECRET = "SECRET-4711"
VALUE = "(new.payload ->> 's')"
# What fails for a message whose payload holds the secret, and quotes it in its error.
LEAKS = {
    "check_constraint": "alter table {name} add check (payload ->> 's' is null)",
    "other_key": "alter table {name} add s text generated always as (payload ->> 's') stored;"
                 "create unique index on {name} (s)",
    "parent": "create table parents (s text primary key); alter table {name} add s text"
              " generated always as (payload ->> 's') stored references parents",
    "domain_check": "alter table {name} add s int generated always as ((payload ->> 's')::int)"
                    " stored",
    "enum_value": "create type mood as enum ('fine'); alter table {name} add s mood",
}
LEAKING_TRIGGERS = {
    "enum_value": f"new.s := {VALUE}",
    "bad_json": f"perform {VALUE}::json",
    "bad_table": f"execute format('select from %I', {VALUE})",
    "bad_class": f"perform {VALUE}::regclass",
    "bad_syntax": f"execute {VALUE}",
    "says_more": f"raise exception 'no' using errcode = 'U0001', detail = {VALUE}, hint = {VALUE}",
    "says_more_for_now": f"raise exception 'no' using errcode = '40001', detail = {VALUE}",
    "stops": f"raise exception 'no' using errcode = 'U0001', detail = {VALUE}",
}


def test_no_error_tells_what_is_in_a_message(db, relay_bin):
    for name in {**LEAKS, **LEAKING_TRIGGERS}:
        make_pipeline(db, name, TABLE + ";" + LEAKS.get(name, ""),
                      on_reject="stop" if name == "stops" else "dlq")
        if name in LEAKING_TRIGGERS:
            db.execute(f"""create function {name}() returns trigger language plpgsql as $$ begin
                if {VALUE} is not null then {LEAKING_TRIGGERS[name]}; end if;
                return new; end $$""")
            db.execute(f"create trigger t before insert on {name} for each row "
                       f"execute function {name}()")
        publish(db, name, {"n": 1}, {"s": SECRET}, {"s": SECRET}, {"n": 2})
    with Relay(db.relay_dsn, log_level="debug") as relay:
        for name in {**LEAKS, **LEAKING_TRIGGERS}:
            if name not in ("stops", "says_more_for_now"):
                wait_count(db, 3 if name == "other_key" else 2, relay, name)
        relay.wait_state("stops", "stopped")
        relay.wait_state("says_more_for_now", "retrying")
        pages = {"log": "\n".join(relay.log_lines)}
        for page in ("/health", "/metrics", "/api/dlq"):
            pages[page] = relay.get(page)[1]
        assert "check_constraint" in pages["/health"] and "bad_json" in pages["/api/dlq"]
        for table in ("relay_pipeline_status", "relay_dead_letters"):
            pages[table] = str(db.execute(f"select t::text from pgtrickle.{table} t"))
    for page, text in pages.items():
        at = text.lower().find(SECRET.lower())
        assert at < 0, (page, text[max(0, at - 300):at + 100])
    # The dead letter itself has it, for those who may read payloads.
    assert db.one("select count(*) from pgtrickle.relay_dlq where pipeline = 'bad_json' "
                  "and convert_from(payload, 'UTF8') like '%%SECRET%%'") == 2
