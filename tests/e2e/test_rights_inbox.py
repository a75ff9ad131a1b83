"""The owner of an inbox's table gains no right through us: its code runs as that owner, if at all.

`mallory` is a login that is a member of nothing and owns one table, which an administrator made an
inbox. What mallory puts on it records who ran it, and takes every right that it can get.
"""

import psycopg
import pytest

from support.adopted_inboxes import (adopt, arrive, gate_function, housekeeping, mallory, shared,
                                     shared_db)
from support.inbox_sql import admin
from support.postgres import refusal

TRIGGER = "before update or delete on mallory.messages for each row execute function mallory.fire()"
VECTORS = {
    "row trigger": f"create trigger t {TRIGGER}",
    "statement trigger": "create trigger t after update or delete on mallory.messages "
                         "for each statement execute function mallory.fire()",
    "rule": "create rule r as on update to mallory.messages do also "
            "insert into mallory.sink select mallory.attack('rule');"
            "create rule d as on delete to mallory.messages do also "
            "insert into mallory.sink select mallory.attack('rule')",
    "generated column": "alter table mallory.messages add g text "
                        "generated always as (mallory.lie(error)) stored",
    "index expression": "create index on mallory.messages (mallory.lie(error))",
    "check": "alter table mallory.messages add check (mallory.lie(error) is distinct from 'no')",
    "row policy": "alter table mallory.messages enable row level security, "
                  "force row level security;"
                  "create policy p on mallory.messages using (mallory.attack('policy'))",
    "domain": "create domain mallory.checked as text check (mallory.attack('domain'));"
              "alter table mallory.messages alter event_id type mallory.checked",
    "domain of a written column": "create domain mallory.checked as text "
                                  "check (mallory.attack('domain'));"
                                  "alter table mallory.messages alter error type mallory.checked",
    "cast": "create type mallory.number as enum ('1', '2', '3', '4');"
            "alter table mallory.messages alter event_id type mallory.number "
            "using event_id::mallory.number;"
            "create function mallory.from_text(text) returns mallory.number language plpgsql "
            "volatile as $$ begin perform mallory.attack('cast'); return '1'; end $$;"
            "create cast (text as mallory.number) with function mallory.from_text as implicit",
    "operator": "create type mallory.number as enum ('1', '2', '3', '4');"
                "alter table mallory.messages alter event_id type mallory.number "
                "using event_id::mallory.number;"
                "create function mallory.same(mallory.number, mallory.number) returns boolean "
                "language sql as $$ select mallory.attack('operator') $$;"
                "create operator public.= (leftarg = mallory.number, rightarg = mallory.number, "
                "function = mallory.same);"
                "create operator mallory.= (leftarg = mallory.number, rightarg = mallory.number, "
                "function = mallory.same)",
}
# What is never evaluated: ids are literals of the type below a domain, and operators are those of the
# index, which a superuser made.
NEVER_RUNS = {"cast", "operator", "domain"}


def rights(db):
    """Everything by which a role could have gained something."""
    return [db.execute(query) for query in (
        "select rolname, rolsuper, rolcreaterole from pg_roles order by 1",
        "select roleid::regrole::text, member::regrole::text from pg_auth_members order by 1, 2",
        "select oid::regclass::text, relowner::regrole::text, relacl::text from pg_class "
        "where relnamespace::regnamespace::text in ('pgtrickle', 'pgtrickle_internal', "
        "'pgtrickle_gate') "
        "order by 1",
        "select nspname, nspowner::regrole::text, nspacl::text from pg_namespace order by 1",
        "select oid::regprocedure::text, proowner::regrole::text, proacl::text, md5(prosrc) "
        "from pg_proc where pronamespace::regnamespace::text like 'pgtrickle%' order by 1")]


def seen(db):
    return {row[0] for row in db.execute("select who from mallory.seen")}


# Code on the table ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS)
def test_what_is_on_an_adopted_table_runs_as_its_owner(shared, vector):
    db, mallory = shared
    adopt(db)
    arrive(db, "1", "2", "3")
    arrive(db, "4", processed="100 hours")
    # With its views in the way no column changes its type.
    mallory.execute("drop view mallory.m_pending, mallory.m_dlq, mallory.m_stats"
                    if "type" in VECTORS[vector] else "select 1")
    mallory.execute(VECTORS[vector])
    db.execute("truncate mallory.seen")
    before = rights(db)
    report = housekeeping(db)
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert db.one("select pgtrickle.inbox_mark_failed('m', '2', 'why')") == 1
    assert db.one("select pgtrickle.replay_inbox_messages('m', '{1,2}')") == 2
    assert db.one("select pgtrickle.inbox_health('m')")["pending"] == 3
    assert [row[2] for row in db.execute("select * from pgtrickle.inbox_status()")] == [3]
    assert (report.get("inbox_rows"), report["errors"]) == (1, [])
    assert rights(db) == before
    assert seen(db) == (set() if vector in NEVER_RUNS else {"mallory"})


def test_a_view_or_table_put_in_the_tables_place_is_not_the_inbox(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1", processed="100 hours")
    before = rights(db)
    mallory.execute("alter table mallory.messages rename to hidden;"
                    "create view mallory.messages as "
                    "select * from mallory.hidden where mallory.attack('view')")
    for _ in range(2):
        said = refusal(db, "select pgtrickle.inbox_mark_processed('m', '1')")
        assert "is another table than the one that became the inbox" in said
        assert "enable_inbox_tracking('m', 'mallory.messages'" in said
        assert "is another table" in housekeeping(db)["errors"][0]["error"]
        assert db.one("select pgtrickle.inbox_health('m')")["status"] == "refused"
        assert (seen(db), rights(db)) == (set(), before)
        mallory.execute("do $$ begin drop view mallory.messages; exception when "
                        "wrong_object_type then drop table mallory.messages; end $$;"
                        "create table mallory.messages (like mallory.hidden including all)")
    adopt(db)
    assert db.one("select pgtrickle.inbox_health('m')")["status"] == "healthy"


def test_a_table_that_was_renamed_is_the_inbox_again_once_its_owner_says_so(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1")
    mallory.execute("alter table mallory.messages rename to letters")
    assert "is gone" in refusal(db, "select pgtrickle.inbox_mark_processed('m', '1')")
    adopt(db, table="mallory.letters")
    assert db.one("select pgtrickle.inbox_mark_processed('m', '1')") is True
    assert db.execute("select event_id from mallory.m_pending") == []


def test_a_type_of_other_roles_is_refused_where_values_are_computed(shared):
    db, mallory = shared
    mallory.execute("create type mallory.number as enum ('1'); alter table mallory.messages "
                    "alter error type mallory.number using null")
    assert "has type mallory.number" in refusal(
        db, "select pgtrickle.enable_inbox_tracking('m', 'mallory.messages')")


def test_defaults_and_triggers_of_an_insert_run_as_the_relay(shared):
    """The relay writes with its own rights, which are those of pgtrickle_relay and no more."""
    db, mallory = shared
    adopt(db)
    mallory.execute("create trigger t before insert on mallory.messages for each row "
                    "execute function mallory.fire()")
    before = rights(db)
    with db.connect(user="relay_daemon") as daemon:
        daemon.execute("insert into mallory.messages (event_id) values ('1')")
    if db.server.version < 15:  # There a login may make others members of itself.
        db.execute("revoke relay_daemon from mallory")
    assert (seen(db), rights(db)) == ({"relay_daemon"}, before)


# Code that would run later ----------------------------------------------------------------------


DEFERRED = {
    "a constraint trigger": "create constraint trigger late after update or delete on "
                            "mallory.messages initially deferred for each row "
                            "execute function mallory.fire()",
    "an exclusion constraint": "alter table mallory.messages add constraint late exclude "
                               "(mallory.lie(error) with =) initially deferred",
}


@pytest.mark.parametrize("kind", DEFERRED)
def test_what_would_run_at_commit_is_not_started(shared, kind):
    db, mallory = shared
    adopt(db)
    arrive(db, "1", processed="100 hours")
    arrive(db, "2", "3")
    mallory.execute(DEFERRED[kind])
    db.execute("truncate mallory.seen")
    before = rights(db)
    report = housekeeping(db)
    assert "inbox_rows" not in report
    assert "on mallory.messages would run at COMMIT" in report["errors"][0]["error"]
    statement = report["errors"][0]["error"].split("Let mallory run: ")[1]
    for call in ("inbox_mark_processed('m', '2')", "inbox_mark_failed('m', '2', 'why')",
                 "replay_inbox_messages('m', '{1}')"):
        assert "Let mallory run: UPDATE mallory.messages SET" in refusal(
            db, f"select pgtrickle.{call}")
    assert (seen(db), rights(db)) == (set(), before)
    # What is named does the same, as the owner; and the owner itself may call the function.
    mallory.execute(statement)
    db.execute("grant usage on schema pgtrickle to mallory; grant execute on function "
               "pgtrickle.inbox_mark_processed(text, text) to mallory")
    assert mallory.execute("select pgtrickle.inbox_mark_processed('m', '2')").fetchone()[0] is True
    assert db.execute("select event_id, processed_at is null from mallory.messages order by 1") == [
        ("2", False), ("3", True)]
    assert seen(db) <= {"mallory"}


def test_a_deferred_trigger_somewhere_else_is_noticed(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1")
    mallory.execute("""
        create table mallory.other (id int);
        create constraint trigger late after insert on mallory.other initially deferred
          for each row execute function mallory.fire();
        create function mallory.leave() returns trigger language plpgsql as
          $$ begin insert into mallory.other values (1); return new; end $$;
        create trigger t before update on mallory.messages for each row
          execute function mallory.leave()""")
    assert "the code behind inbox \"m\" leaves a deferred trigger behind" in refusal(
        db, "select pgtrickle.inbox_mark_processed('m', '1')")
    mallory.execute("create trigger d before delete on mallory.messages for each row "
                    "execute function mallory.leave()")
    arrive(db, "2", processed="100 hours")
    assert "Let the owner of the table run: DELETE FROM mallory.messages" \
        in housekeeping(db)["errors"][0]["error"]
    assert seen(db) == set()


LEFT = {
    "temporary table": ("execute 'create temp table orders (id int)'", "a temporary object"),
    "temporary view": ("execute 'create temp view orders as select 1'", "a temporary object"),
    "temporary type": ("execute 'create type pg_temp.number as enum ()'", "a temporary object"),
    "temporary function": ("execute 'create function pg_temp.f() returns int language sql as "
                           "''select 1'''", "a temporary object"),
    "setting": ("perform set_config('standard_conforming_strings', 'off', false)",
                "another standard_conforming_strings"),
    "durability": ("perform set_config('synchronous_commit', 'off', true)",
                   "another synchronous_commit"),
    "plans": ("perform set_config('enable_indexscan', 'off', false)", "another enable_indexscan"),
    "name": ("perform set_config('application_name', 'other', true)", "another application_name"),
    "cursor": ("execute 'declare mine cursor for select 1'", "a cursor"),
    "prepared statement": ("execute 'prepare mine as select 1'", "a prepared statement"),
}


@pytest.mark.parametrize("kind", LEFT)
def test_nothing_is_left_in_the_session_of_who_marks(shared, kind):
    db, mallory = shared
    leave, what = LEFT[kind]
    adopt(db)
    arrive(db, "1")
    mallory.execute(f"""
        create function mallory.leave() returns trigger language plpgsql as
          $$ begin {leave}; return new; end $$;
        create trigger t before update on mallory.messages for each row
          execute function mallory.leave()""")
    assert f"leaves {what} behind" in refusal(
        db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert db.one("select processed_at is null from mallory.messages")


def test_a_cursor_of_the_caller_is_not_replaced(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1")
    mallory.execute("""
        create function mallory.leave() returns trigger language plpgsql as $$
        begin
          close mine;
          execute 'declare mine cursor for select mallory.attack(''cursor'')';
          return new;
        end $$;
        create trigger t before update on mallory.messages for each row
          execute function mallory.leave()""".replace("close mine;", "execute 'close mine';"))
    with db.connect(autocommit=False) as consumer:
        consumer.execute("declare mine cursor for select 1")
        assert "leaves a cursor behind" in refusal(
            consumer, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert seen(db) == set()


def test_temporary_tables_of_the_caller_are_not_dropped(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1")
    mallory.execute("""
        create function mallory.leave() returns trigger language plpgsql as
          $$ begin execute 'discard temp'; return new; end $$;
        create trigger t before update on mallory.messages for each row
          execute function mallory.leave()""")
    with db.connect() as consumer:
        consumer.execute("create temp table mine (id int)")
        assert "leaves a temporary object behind" in refusal(
            consumer, "select pgtrickle.inbox_mark_processed('m', '1')")
        assert consumer.execute("select count(*) from mine").fetchone() == (0,)


POISON = """
    create function mallory.differ(text, text) returns boolean language plpgsql as
      $$ begin perform mallory.attack('operator'); return false; end $$;
    create operator mallory.<> (leftarg = text, rightarg = text, function = mallory.differ);
    create function mallory.current_setting(text) returns text language plpgsql as
      $$ begin perform mallory.attack('function'); return 'pg_catalog, pg_temp'; end $$;"""


def test_a_changed_path_steers_nothing_of_ours(shared):
    db, mallory = shared
    adopt(db)
    arrive(db, "1")
    mallory.execute(POISON + """
        create function mallory.leave() returns trigger language plpgsql as $$
        begin perform set_config('search_path', 'mallory, pg_catalog', false); return new; end $$;
        create trigger t before update on mallory.messages for each row
          execute function mallory.leave()""")
    assert "another search_path" in refusal(
        db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert seen(db) == set()


def test_only_the_gate_calls_the_function_of_an_owner(db, mallory):
    adopt(db)
    arrive(db, "1")
    function = gate_function(db)
    assert db.one("select proacl::text from pg_proc where oid = to_regprocedure(%s)",
                  (function + "(text, jsonb)",)) \
        == "{mallory=X/mallory,pgtrickle_sandbox=X/mallory}"
    for role in ("pgtrickle_admin", "pgtrickle_sandbox"):
        with db.connect() as connection:
            connection.execute(f"set role {role}")
            assert "permission denied" in refusal(
                connection, f"select {function}('purge', '{{}}')") or role == "pgtrickle_sandbox"
            assert "permission denied" in refusal(
                connection, "select pgtrickle_gate.call_as_owner('x', 'purge', '{}')")
    assert "is called by pgtrickle only" in refusal(
        db, f"select {function}('processed', '{{\"event_id\": \"1\"}}')")


def test_a_function_turned_around_reaches_no_other_owners(db, mallory):
    """As pgtrickle_sandbox it may execute the functions of others, which ask for their own key."""
    adopt(db)
    db.execute("create table honest (event_id text primary key, payload jsonb, "
               "processed_at timestamptz); insert into honest values ('1')")
    adopt(db, table="honest", name="honest")
    arrive(db, "1")
    mallory.execute("grant usage, create on schema mallory to public")
    db.execute("grant usage, create on schema pgtrickle_streams to mallory")
    mallory.execute(f"""
        create or replace function {gate_function(db)}(action text, arg jsonb)
        returns table (op text, ord bigint, row_data jsonb) language plpgsql as $$
        declare key text := current_setting('pgtrickle.gate_key', true);
        begin
          perform mallory.attack('invoker');
          perform set_config('pgtrickle.gate_key', key, true);
          perform {gate_function(db, 'honest')}(action, arg);
        end $$""")
    before = rights(db)
    assert "not SECURITY DEFINER any more" in refusal(
        db, "select pgtrickle.inbox_mark_processed('m', '1')")
    # One that is turned around while it is called runs as the sandbox.
    with db.connect() as sandbox:
        sandbox.execute("set role pgtrickle_sandbox")
        for name in ("m", "honest"):
            assert "is called by pgtrickle only" in refusal(
                sandbox, f"select * from {gate_function(db, name)}('processed', "
                         "'{\"event_id\": \"1\"}')")
    assert db.one("select processed_at is null from honest")
    assert rights(db) == before


def test_a_function_turned_around_cannot_remove_the_gate(db, mallory):
    adopt(db)
    arrive(db, "1")
    db.execute("grant usage, create on schema pgtrickle_streams to mallory")
    mallory.execute(f"""
        create or replace function {gate_function(db)}(action text, arg jsonb)
        returns table (op text, ord bigint, row_data jsonb) language plpgsql as
        $$ begin execute 'drop owned by pgtrickle_sandbox'; end $$""")
    before = rights(db)
    assert "not SECURITY DEFINER any more" in refusal(
        db, "select pgtrickle.inbox_mark_processed('m', '1')")
    assert rights(db) == before


# What the catalog believes ----------------------------------------------------------------------


def row(**fields):
    values = {"inbox_name": "forged", "table_schema": "pgtrickle", "columns": "{}",
              "made_here": True, "max_retries": 3, "with_dead_letter": True, "with_stats": True,
              "retention_hours": 1, **fields}
    return psycopg.types.json.Jsonb(values)


FORGED = "jsonb_populate_record(null::pgtrickle.pgt_inbox_config, %s)"


def test_an_administrator_makes_none_of_our_tables_an_inbox(db, admin):
    columns = '{"event_id": "pipeline", "payload": "config", "processed_at": "created_at"}'
    before = rights(db)
    for call in ("register_inbox", "build_own_inbox", "build_inbox"):
        refusal(admin, f"select pgtrickle_internal.{call}({FORGED})", (row(
            table_name="relay_dlq", columns=columns, pending_view="relay_pipelines"),))
    refusal(admin, f"select pgtrickle_internal.store_inbox({FORGED})", (row(table_name="relay_dlq"),))
    assert db.execute("select * from pgtrickle.pgt_inbox_config") == []
    assert rights(db) == before
    assert db.one("select to_regclass('pgtrickle.relay_pipelines')") is not None


def test_an_administrator_makes_no_table_of_others_an_inbox(db, admin, mallory):
    oid = db.one("select 'mallory.messages'::regclass::oid")
    columns = '{"event_id": "event_id", "payload": "payload", "processed_at": "processed_at"}'
    forged = row(table_schema="mallory", table_name="messages", relation=str(oid), columns=columns,
                 gate_function="mine")
    assert "has not made it the inbox" in refusal(
        admin, f"select pgtrickle_internal.register_inbox({FORGED})", (forged,))
    body = admin.execute(f"select pgtrickle_internal.inbox_gate_body({FORGED})", (forged,)).fetchone()[0]
    assert "must be" in refusal(admin, "select pgtrickle_internal.gate_function('mine', "
                                       "'mallory'::regrole, %s)", (body,))
    # A function of the administrator's own is not the owner's word.
    admin.execute("select pgtrickle_internal.gate_function('mine', 'inbox_admin'::regrole, %s)", (body,))
    assert "has not made it the inbox" in refusal(
        admin, f"select pgtrickle_internal.register_inbox({FORGED})", (forged,))
    adopt(db)
    assert "is dropped by the owner" in refusal(admin, "select pgtrickle_internal.forget_inbox('m')")
    refusal(admin, "select pgtrickle.drop_inbox('m')")
    assert db.one("select pgtrickle.inbox_health('m')")["status"] == "healthy"


def test_no_role_puts_anything_of_its_own_on_a_table_of_ours(db, admin, mallory):
    db.execute("select pgtrickle.create_inbox('shop')")
    admin.execute("create function pg_temp.f() returns trigger language plpgsql as "
                  "$$ begin return new; end $$")
    with db.connect(user="relay_daemon") as daemon:
        for connection in (admin, daemon, mallory):
            for statement in (
                    "create trigger t before update on pgtrickle.inbox_shop for each row "
                    "execute function pgtrickle_internal.stream_guard()",
                    "create rule r as on update to pgtrickle.inbox_shop do nothing",
                    "create policy p on pgtrickle.inbox_shop",
                    "alter table pgtrickle.inbox_shop alter error set default 'x'",
                    "alter table pgtrickle.inbox_shop add x int",
                    "alter table pgtrickle.inbox_shop rename to other",
                    "create index on pgtrickle.inbox_shop (error)",
                    "create table child () inherits (pgtrickle.inbox_shop)",
                    "create table fk (id text references pgtrickle.inbox_shop)",
                    "insert into pgtrickle_internal.inbox_tables values ('pg_class')",
                    "update pgtrickle.pgt_inbox_config set made_here = true"):
                refusal(connection, statement)


def test_a_table_of_ours_with_parts_that_are_not_ours_is_refused(db, mallory):
    db.execute("create table pgtrickle.inbox_old (event_id text primary key, payload jsonb, "
               "processed_at timestamptz);"
               "create trigger t before update on pgtrickle.inbox_old for each row "
               "execute function mallory.fire();"
               "alter table pgtrickle.inbox_old owner to pgtrickle_owner")
    assert "not all of it: trigger t" in refusal(db, "select pgtrickle.create_inbox('old')")
    db.execute("drop trigger t on pgtrickle.inbox_old; select pgtrickle.create_inbox('old')")
    assert db.one("select pgtrickle.inbox_mark_processed('old', '1')") is False


def test_a_name_of_the_gate_that_another_role_has_is_refused(db, admin):
    db.login("taker", "pgtrickle_admin")
    with db.connect(user="taker") as taker:
        taker.execute("select pgtrickle_internal.gate_function('outbox_7', 'taker'::regrole, "
                      "'begin null; end')")
    said = refusal(db, "select pgtrickle_internal.gate_function('outbox_7', 'postgres'::regrole, "
                       "'begin null; end')")
    assert "belongs to taker" in said
    db.execute("select pgtrickle_internal.gate_drop('outbox_7')")
    assert db.one("select to_regprocedure('pgtrickle_streams.outbox_7(text, jsonb)')") is None


def test_ids_of_stream_tables_whose_names_are_taken_are_skipped(db):
    db.login("taker", "pgtrickle_admin")
    with db.connect(user="taker") as taker:
        taker.execute("create function pgtrickle_streams.refresh_1(text, jsonb) returns int "
                      "language sql as 'select 1';"
                      "create table pgtrickle_streams.diff_2 ();"
                      "create domain pgtrickle_streams.diff_3 as int")
    db.execute("create table t (id int);"
               "select pgtrickle.create_stream_table('s', 'table t', null)")
    assert db.one("select pgt_id from pgtrickle.pgt_stream_tables") == 4
    assert db.one("select pgtrickle.refresh_stream_table('s')")["action"] == "NO_DATA"
