"""A stream table acts with its creator's privileges: not with ours, nor with its refresher's."""

import psycopg
import pytest
from support.stream_tables import create, due, refresh, state


# Privileges ----------------------------------------------------------------------------------

@pytest.fixture
def alice(db):
    """An ordinary administrator of stream tables: no other role has to trust it."""
    db.login("alice", "pgtrickle_admin")
    db.execute("grant create on schema public to alice")
    with db.connect(user="alice") as connection:
        yield connection


def test_an_administrator_without_superuser_can_do_everything(db, alice):
    db.execute("create table secret (id int); create table t (id int)")
    alice.execute("create table mine (id int primary key)")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from mine', '1ms', 'AUTO', "
                  "'{id}')")
    alice.execute("select pgtrickle.enable_outbox('s')")
    alice.execute("insert into mine values (1)")
    assert due(db) == ["public.s"]
    with db.connect(user="relay_daemon") as daemon:
        assert daemon.execute("select pgtrickle.refresh_stream_table('public.s') ->> 'inserted'"
                              ).fetchone() == ("1",)
    alice.execute("select pgtrickle.alter_stream_table('s', '2s', 'FULL', rename_to => 's2')")
    alice.execute("select pgtrickle.refresh_stream_table('s2')")
    alice.execute("select pgtrickle.drop_stream_table('s2')")
    assert alice.execute("select * from pgtrickle.pgt_stream_tables").fetchall() == []


def test_the_query_always_runs_with_its_creators_privileges(db, alice):
    db.execute("create table secret (id int); insert into secret values (1)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        alice.execute("select pgtrickle.create_stream_table('s', 'select id from secret')")
    db.execute("grant select on secret to alice")
    alice.execute("select pgtrickle.create_stream_table('s', "
                  "'select id, current_user::text as who from secret', '1ms')")
    assert db.execute("select id, who from s") == [(1, "alice")]
    db.execute("insert into secret values (2)")
    with db.connect(user="relay_daemon") as daemon:
        daemon.execute("select pgtrickle.refresh_stream_table('public.s')")
    assert db.execute("select id, who from s order by 1") == [(1, "alice"), (2, "alice")]
    db.execute("revoke select on secret from alice")
    db.execute("insert into secret values (3)")
    assert "permission denied for table secret" in refresh(db, "s")["error"]


def test_a_source_that_may_be_read_but_not_watched_is_still_followed(db, alice):
    db.execute("create table theirs (id int); grant select on theirs to alice")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from theirs', '1ms')")
    assert state(db, "s")["always_due"]
    db.execute("insert into theirs values (1)")
    settled_once = refresh(db, "s")
    assert settled_once["inserted"] == 1
    db.execute("grant trigger on theirs to alice")
    refresh(db, "s")
    assert not state(db, "s")["always_due"]


EVIL = """
    create function evil() returns text language plpgsql volatile as $$
    declare done text := '';
    begin
      done := done || current_user;
      begin
        update pgtrickle.pgt_stream_tables set status = 'SUSPENDED';
        done := done || ' +catalog';
      exception when others then null; end;
      begin
        perform 1 from secret; done := done || ' +secret';
      exception when others then null; end;
      begin
        alter function pgtrickle_gate.call_as_owner(text, text, jsonb) security invoker;
        done := done || ' +gate';
      exception when others then null; end;
      begin
        perform pgtrickle_gate.call_as_owner('refresh_1', 'apply', '{}'); done := done || ' +call';
      exception when others then null; end;
      begin
        perform pgtrickle_streams.refresh_1('apply', '{"keep": true}');
        done := done || ' +other';
      exception when others then null; end;
      begin
        create table pgtrickle.planted (id int); done := done || ' +planted';
      exception when others then null; end;
      begin
        perform pg_catalog.set_config('role', 'pgtrickle_owner', false); done := done || ' +role';
      exception when others then null; end;
      raise exception 'I was %', done;
    end $$"""


@pytest.fixture
def victim(db):
    """Another role's stream table, which is the first one (refresh_1)."""
    db.execute("create table secret (id int); insert into secret values (1)")
    create(db, "victims", "select id from secret")
    return db


def test_a_malicious_query_acts_as_its_creator_and_not_as_us(victim, alice):
    alice.execute("create table t (id int)")
    alice.execute(EVIL)
    alice.execute("select pgtrickle.create_stream_table('s', 'select evil() as x from t', null)")
    alice.execute("insert into t values (1)")
    assert refresh(victim, "s")["error"] == "I was alice"


def test_a_refresh_function_turned_around_is_not_called(victim, alice):
    """Its owner may make it run as its caller. (One that is turned around while it is called runs as a
    role that may do nothing.)"""
    alice.execute("create table t (id int)")
    alice.execute(EVIL)
    alice.execute("grant execute on function evil() to public")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from t', null)")
    alice.execute("""create or replace function pgtrickle_streams.refresh_2(action text, arg jsonb)
                     returns table (op text, ord bigint, row_data jsonb) language plpgsql as
                     $$ begin perform public.evil(); end $$;
                     grant execute on function pgtrickle_streams.refresh_2(text, jsonb)
                       to public""")
    assert "is not SECURITY DEFINER any more" in refresh(victim, "s")["error"]
    # A refresh function answers to a refresh of its own stream table only.
    with pytest.raises(psycopg.Error, match="permission denied"):
        alice.execute("select pgtrickle_streams.refresh_1('apply', '{}')")
    with pytest.raises(psycopg.Error, match="permission denied"):
        alice.execute("select pgtrickle_gate.call_as_owner('refresh_1', 'apply', '{}')")
    with victim.connect() as superuser:
        with pytest.raises(psycopg.Error, match="is not being refreshed here"):
            superuser.execute("select pgtrickle_streams.refresh_1('apply', '{}')")


LEFT_BEHIND = [
    ("insert into public.deferring values (1)", "a deferred trigger"),
    ("insert into public.excluding values (1), (1)", "a deferred trigger"),
    ("perform set_config('search_path', 'public', false)", "another search_path"),
    ("perform set_config('TimeZone', 'Asia/Tokyo', false)", "another TimeZone"),
    ("perform set_config('work_mem', '64kB', false)", "another work_mem"),
    ("perform set_config('pg_trickle.user_triggers', 'off', false)",
     "another pg_trickle.user_triggers"),
    ("execute 'create temp table orders (id int)'", "a temporary object"),
    ("execute 'create temp view orders as select 1'", "a temporary object"),
    ("create function pg_temp.f() returns int language sql as 'select 1'", "a temporary object"),
    ("execute 'declare kept cursor with hold for select 1'", "a cursor WITH HOLD"),
    ("execute 'prepare planted as select 1'", "a prepared statement")]


def test_nothing_is_left_behind_to_run_as_the_refreshing_role(db, alice):
    alice.execute("""
        create table t (id int);
        create table deferring (id int);
        create function noted() returns trigger language plpgsql as $$ begin return null; end $$;
        create constraint trigger noted after insert on deferring initially deferred
          for each row execute function noted();
        create function same(int) returns int language sql immutable as 'select $1';
        create table excluding (id int);
        alter table excluding add exclude (same(id) with =) initially deferred;
        create function leave() returns int language sql volatile as 'select 1'""")
    alice.execute("select pgtrickle.create_stream_table('s', 'select leave() as x from t', null)")
    alice.execute("insert into t values (1)")
    for leave, what in LEFT_BEHIND:
        alice.execute("create or replace function leave() returns int language plpgsql volatile "
                      f"as $$ begin {leave}; return 1; end $$")
        assert f"leaves {what} behind" in refresh(db, "s")["error"]
        alice.execute("select pgtrickle.alter_stream_table('s', resume => true)")
    alice.execute("create or replace function leave() returns int language sql volatile "
                  "as 'select 1'")
    assert refresh(db, "s")["inserted"] == 1


def test_a_refresh_that_changes_the_path_steers_nothing_of_ours(db, alice):
    """The check that looks for it does not run under that path."""
    db.execute("create schema evil authorization alice")
    alice.execute("""
        create table evil.seen (who text);
        grant usage on schema evil to public;
        grant insert on evil.seen to public;
        create table t (id int);
        create function evil.differ(text, text) returns boolean language plpgsql as
          $$ begin insert into evil.seen values (current_user); return false; end $$;
        create operator evil.<> (leftarg = text, rightarg = text, function = evil.differ);
        create function leave() returns int language plpgsql volatile as $$
        begin perform set_config('search_path', 'evil, pg_catalog', false); return 1; end $$""")
    alice.execute("select pgtrickle.create_stream_table('s', 'select leave() as x from t', null)")
    alice.execute("insert into t values (1)")
    assert "another search_path" in refresh(db, "s").get("error", "")
    assert db.execute("select who from evil.seen") == []


def test_what_is_not_granted_is_refused(db, alice):
    alice.execute("create table t (id int)")
    alice.execute("select pgtrickle.create_stream_table('s', 'select id from t', null)")
    outsider = psycopg.connect(db.login("outsider"), autocommit=True)
    for statement in ("pgtrickle.create_stream_table('x', 'select 1 as x')",
                      "pgtrickle.refresh_stream_table('s')", "pgtrickle.stream_tables_due()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            outsider.execute(f"select {statement}")
    outsider.close()
    bob = psycopg.connect(db.login("bob", "pgtrickle_admin"), autocommit=True)
    for statement in ("drop_stream_table('s')", "alter_stream_table('s', rename_to => 'x')",
                      "alter_stream_table('s', query => 'select 2 as id')"):
        with pytest.raises(psycopg.Error, match="must be owner|permission denied"):
            bob.execute(f"select pgtrickle.{statement}")
    bob.close()
