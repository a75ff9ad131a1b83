"""Who may subscribe, as which role expressions run, and what a subscriber does not gain."""

import threading

import psycopg
import pytest
from support.hostile_path import PATH, shadow, victims
from support.postgres import refusal
from support.stream_database import (events, failed, files, stream_db, stream_server,  # noqa: F401
                                     subscribe, triggers)

# Functions that run under the search_path of their caller: every name in them is qualified.
UNPINNED = {"_event_id", "_day", "_partition_of", "_has_partition", "set_subscriptions",
            "_subscriptions_insert_compile", "_subscriptions_update_compile",
            "_subscriptions_delete_compile"}


@pytest.fixture
def town(stream_db):
    """mallory and clerk may subscribe and own a table each; app may write to both; boss is a
    superuser."""
    for name in ("mallory", "clerk"):
        stream_db.login(name, "pgstream_subscriber")
    stream_db.login("app")
    stream_db.login("boss")
    stream_db.execute("""
        alter role boss superuser;
        create table public.till (id int, total int);
        alter table till owner to clerk;
        create schema den authorization mallory;
        create table den.loot (id int, total int);
        alter table den.loot owner to mallory;
        grant usage on schema den to public;
        grant insert, select on till, den.loot to app""")
    return stream_db


def test_subscribers_subscribe_to_their_own_tables_only(town):
    with town.connect(user="clerk") as clerk:
        subscribe(clerk, table="till", extensions=[("who", "current_user::text")])
    before = (town.execute("select * from pgstream.subscriptions"),
              town.execute("select * from pgstream._subscriptions"), triggers(town, "till"))
    with town.connect(user="mallory") as mallory:
        for attempt in (
                "insert into pgstream.subscriptions (key, stream_id, operation, schema_name,"
                " table_name, column_names) values ('m', 1, 'INSERT', 'public', 'till', '{id}')",
                "update pgstream.subscriptions set payload_extensions = null",
                "update pgstream.subscriptions set schema_name = 'den', table_name = 'loot'",
                "delete from pgstream.subscriptions",
                "select pgstream.set_subscriptions(1, '{}')"):
            assert 'must be owner of table "public.till"' in refusal(mallory, attempt), attempt
        # The compiled form, past the triggers on the subscriptions.
        assert "row-level security" in refusal(
            mallory, "insert into pgstream._subscriptions select 1, 'm', 'public', 'till',"
            " 'INSERT', owner_name, 'x', null, false, '{}', 'current_user', 'false'"
            " from pgstream._subscriptions")
        assert mallory.execute("delete from pgstream._subscriptions").rowcount == 0
        assert "permission denied" in refusal(
            mallory, "update pgstream._subscriptions set key = key")
    assert before == (town.execute("select * from pgstream.subscriptions"),
                      town.execute("select * from pgstream._subscriptions"),
                      triggers(town, "till"))


def test_a_login_without_rights_cannot_subscribe(town):
    town.execute("create table mine (id int); alter table mine owner to app")
    with town.connect(user="app") as app:
        assert "permission denied for table subscriptions" in refusal(
            app, "insert into pgstream.subscriptions (key, stream_id, operation, schema_name,"
            " table_name) values ('m', 1, 'INSERT', 'public', 'mine')")


def test_expressions_run_as_the_owner_of_the_table_and_conditions_as_the_writer(town):
    with town.connect(user="mallory") as mallory:
        subscribe(mallory, table="loot", schema="den", when="current_user <> 'nobody'",
                  extensions=[("who", "current_user::text"), ("login", "session_user::text")])
        subscribe(mallory, "by app", table="loot", schema="den", when="current_user = 'app'")
        subscribe(mallory, "guarded", table="loot", schema="den",
                  when="current_user || new.id::text = 'app1'")
    for user in ("app", "boss"):
        with town.connect(user=user) as connection:
            connection.execute("insert into den.loot values (1)")
    made = events(town)
    assert failed(town) == []
    assert [(e["who"], e["login"]) for e in made if e["tg_name"] == "k"] == [
        ("mallory", "app"), ("mallory", "boss")]
    assert sorted(e["tg_name"] for e in made) == ["by app", "guarded", "k", "k"]


def test_code_in_an_expression_gets_no_rights_of_the_writer_or_of_ours(town):
    """It runs when a superuser commits, with nothing but the rights of the owner of the table."""
    with town.connect(user="mallory") as mallory:
        mallory.execute("create table den.ran (attempt text, state text, role text)")
        mallory.execute("""
            create function den.attack() returns text language plpgsql as $$
            declare
              attempt text;
            begin
              foreach attempt in array array[
                'reset role', 'set role boss', 'set session authorization boss',
                'alter role mallory superuser', 'grant pgstream_owner to mallory',
                'select * from pg_authid', 'delete from pgstream.subscriptions',
                'insert into pgstream.events (stream_id) values (1)',
                'select pgstream._write_till(1, null, null)',
                'select pgstream._prepare(null, null)',
                'create function pgstream.planted() returns int language sql return 1']
              loop
                begin
                  execute attempt;
                  insert into den.ran values (attempt, '00000', current_user);
                exception when others then
                  insert into den.ran values (attempt, sqlstate, current_user);
                end;
              end loop;
              return current_user;
            end $$""")
        subscribe(mallory, table="loot", schema="den", extensions=[("x", "den.attack()")])
    with town.connect(user="clerk") as clerk:
        subscribe(clerk, "clerk's", table="till")
    with town.connect(user="boss") as boss:
        boss.execute("insert into den.loot values (1)")
    assert [e["x"] for e in events(town)] == ["mallory"]
    assert town.execute("select distinct role from den.ran") == [("mallory",)]
    assert town.one("select count(*) from den.ran") == 11
    assert town.execute("select attempt, state from den.ran where state <> '42501'") == []
    assert town.one("select rolsuper from pg_roles where rolname = 'mallory'") is False
    assert town.one("select count(*) from pgstream.subscriptions") == 2


def test_a_superuser_subscribes_for_the_owner(town):
    with town.connect(user="boss") as boss:
        subscribe(boss, table="loot", schema="den", when="new.id / 1 > 0",
                  extensions=[("who", "current_user::text")])
    assert town.execute("select distinct proowner::regrole::text from pg_proc"
                        " where proname ~ '^_(publish|condition)_.*_on_loot'") == [("mallory",)]
    with town.connect(user="boss") as boss:
        boss.execute("insert into den.loot values (1)")
    assert [e["who"] for e in events(town)] == ["mallory"]
    with town.connect(user="mallory") as mallory:
        mallory.execute("delete from pgstream.subscriptions")
    assert triggers(town, "den.loot") == []


def test_a_member_of_the_owning_role_subscribes(town):
    town.login("seller", "pgstream_subscriber")
    town.execute("""
        do $$ begin
          if to_regrole('shop') is null then create role shop; grant shop to seller; end if;
        end $$;
        create table wares (id int); alter table wares owner to shop""")
    with town.connect(user="seller") as seller:
        subscribe(seller, table="wares", extensions=[("who", "current_user::text")])
        seller.execute("insert into wares values (1)")
    assert [e["who"] for e in events(town)] == ["shop"]


def test_a_subscriber_gets_no_right_in_the_schema(town):
    town.execute("""
        create function den.plant() returns int language plpgsql as $$
        begin
          create function pgstream.planted() returns int language sql as 'select 1';
          return 1;
        end $$;
        alter function den.plant() owner to mallory""")
    with town.connect(user="mallory") as mallory:
        subscribe(mallory, table="loot", schema="den")
        for attempt in ("create table pgstream.planted (id int)",
                        "select den.plant()",
                        "insert into pgstream.subscriptions (key, stream_id, operation,"
                        " schema_name, table_name, column_names)"
                        " select 'p', den.plant(), 'INSERT', 'den', 'loot', '{id}'",
                        "update pgstream.subscriptions set metadata = to_jsonb(den.plant())"):
            assert "permission denied for schema pgstream" in refusal(mallory, attempt), attempt
        for table in ("events", "events_overflow", "streams", "failed_events", "_tables",
                      "backlog"):
            assert "permission denied" in refusal(
                mallory, f"insert into pgstream.{table} default values")
        for table in ("events", "events_overflow", "streams", "backlog", "dead_letters"):
            assert "permission denied" in refusal(mallory, f"select * from pgstream.{table}")
    assert town.one("select count(*) from pg_namespace n, aclexplode(n.nspacl) a"
                    " where nspname = 'pgstream' and privilege_type = 'CREATE'"
                    " and grantee <> nspowner") == 0


# PostgreSQL reads a literal when it parses an expression, and runs what the type says.
READ_AT_ONCE = """
    create table den.ran (role text, planted boolean); grant insert on den.ran to public;
    create function den.check(int) returns boolean language plpgsql as $$
    declare
      planted boolean := true;
    begin
      begin
        create function pgstream.planted() returns int language sql return 1;
      exception when insufficient_privilege then
        planted := false;
      end;
      insert into den.ran values (current_user, planted);
      return true;
    end $$;
    create domain den.checked as int check (den.check(value))"""


@pytest.mark.parametrize("by", ["mallory", "boss", "fellow"])
@pytest.mark.parametrize("fields", [
    {"extensions": [("x", "'{5}'::den.checked[]")]},
    {"when": "'{5}'::den.checked[] is not null"},
    {"when": "new.id / 1 > 0 and '{5}'::den.checked[] is not null"},
], ids=["payload", "condition", "guarded condition"])
def test_a_literal_that_runs_code_does_it_as_the_owner_of_the_table(town, by, fields):
    """And while that role may create nothing in our schema, also where another role subscribes."""
    town.login("fellow", "pgstream_subscriber")
    town.execute("grant mallory to fellow")
    with town.connect(user="mallory") as mallory:
        mallory.execute(READ_AT_ONCE)
    town.execute("alter table den.ran owner to postgres; grant insert on den.ran to public")
    with town.connect(user=by) as session:
        subscribe(session, table="loot", schema="den", **fields)
        session.execute("update pgstream.subscriptions set key = key")
        session.execute("delete from pgstream.subscriptions where key = 'k'")
    assert town.execute("select distinct role, planted from den.ran") == [("mallory", False)]
    assert town.one("select count(*) from pg_proc where proname = 'planted'") == 0
    town.execute("revoke mallory from fellow")


def test_only_the_owner_writes_events_of_a_table(town):
    with town.connect(user="clerk") as clerk:
        subscribe(clerk, table="till")
    for user in ("mallory", "app"):
        with town.connect(user=user) as session:
            for call in ("pgstream._write_till(1, '{\"forged\": true}', null)",
                         "pgstream._keep_till(1, 'k', 'INSERT', false, 'XX000', 'x', '{}', null)",
                         "pgstream._keep(1, 'k', 'a', 'b', 'c', false, 'XX000', 'x', '{}', null)",
                         "pgstream._prepare('{}', '{}')",
                         "pgstream._define_writers('till', 'public', 'till', '{}')",
                         "pgstream.make_partitions()", "pgstream.add_stream(3)"):
                assert "permission denied for function" in refusal(session, f"select {call}"), call
    with town.connect(user="mallory") as mallory:
        assert "permission denied" in refusal(
            mallory, "create trigger x after insert on den.loot for each row"
            " execute function pgstream._publish_after_insert_on_till('k', '1', 'x')")
    with town.connect(user="clerk") as clerk:  # Another stream than those of its subscriptions.
        clerk.execute("select pgstream._write_till(2, '{\"forged\": true}', null)")
    assert events(town) == [] and events(town, 2) == []


def test_casts_of_other_roles_are_not_looked_up(town):
    town.execute("""
        create table den.ran (role text); grant insert on den.ran to public;
        create type den.mood as enum ('sad', 'glad');
        create type den.pair as (mood den.mood, n int);
        alter type den.mood owner to mallory; alter type den.pair owner to mallory;
        create function den.cast(den.mood) returns json language plpgsql as $$
          begin insert into den.ran values (current_user); return '"stolen"'; end $$;
        create function den.cast_text(den.mood) returns text language plpgsql as $$
          begin insert into den.ran values (current_user); return 'stolen'; end $$;
        alter function den.cast(den.mood) owner to mallory;
        alter function den.cast_text(den.mood) owner to mallory;
        create table safe (id int, mood den.mood, moods den.mood[], pair den.pair, word text)""")
    subscribe(town, table="safe", columns=["mood", "moods", "pair", "word"],
              extensions=[("x", "new.mood"), ("y", "new.pair"), ("z", "new.word")])
    with town.connect(user="mallory") as mallory:
        mallory.execute("create cast (den.mood as json) with function den.cast(den.mood);"
                        "create cast (den.mood as text) with function den.cast_text(den.mood)")
    town.execute("insert into safe values (1, 'glad', '{sad,glad}', '(sad,1)', 'w')")
    pair = {"mood": "sad", "n": 1}
    assert [(e["new"], e["x"], e["y"], e["z"]) for e in events(town)] == [
        ({"mood": "glad", "moods": ["sad", "glad"], "pair": pair, "word": "w"}, "glad", pair, "w")]
    # The column gets that type later.
    town.execute("alter table safe alter word type den.mood using 'sad'")
    for _ in range(2):
        town.execute("insert into safe values (2, 'glad', '{}', null, 'glad')")
        town.close()
    assert len(failed(town)) == 2
    assert town.one("select new_row ->> 'word' from pgstream.failed_events limit 1") == "glad"
    assert town.one("select pgstream.retry_failed()") == 2
    assert events(town)[1]["new"]["word"] == "glad"
    assert town.execute("select * from den.ran") == []


def test_a_retry_runs_no_code_of_other_owners(town):
    town.execute("create table den.ran (role text); grant insert on den.ran to public")
    with town.connect(user="mallory") as mallory:
        mallory.execute("""
            create function den.spy() returns int language plpgsql as $$
              begin insert into den.ran values (current_user); return 1; end $$""")
        subscribe(mallory, table="loot", schema="den", extensions=[("x", "1 / new.total")])
        mallory.execute("insert into den.loot values (1, 0)")
        mallory.execute("update pgstream.subscriptions set payload_extensions ="
                        " '[{\"json_path\": \"x\", \"expression\": \"den.spy()\"}]'")
        assert len(mallory.execute("select * from pgstream.failed_events").fetchall()) == 1
    with town.connect(user="boss") as boss:
        assert boss.execute("select pgstream.retry_failed()").fetchall() == [(0,)]
    with town.connect(user="clerk") as clerk:
        assert clerk.execute("select * from pgstream.failed_events").fetchall() == []
        assert clerk.execute("delete from pgstream.failed_events").rowcount == 0
    assert town.execute("select * from den.ran") == []
    with town.connect(user="mallory") as mallory:
        assert mallory.execute("select pgstream.retry_failed()").fetchall() == [(1,)]
    assert town.execute("select * from den.ran") == [("mallory",)]


def test_the_expressions_of_an_earlier_owner_do_not_run_as_the_next_one(town):
    with town.connect(user="mallory") as mallory:
        subscribe(mallory, table="loot", schema="den", extensions=[("who", "current_user::text")])
    town.execute("alter table den.loot owner to clerk")
    with town.connect(user="app") as app:
        app.execute("insert into den.loot values (1)")
    assert [e["who"] for e in events(town)] == ["mallory"]
    assert town.execute("select problem from pgstream.subscription_problems(1)") == [
        ('its function pgstream._publish_after_insert_on_loot() belongs to "mallory", and not to '
         "the owner of the table",)]
    with town.connect(user="clerk") as clerk:
        said = refusal(clerk, "insert into pgstream.subscriptions (key, stream_id, operation,"
                       " schema_name, table_name, column_names) values"
                       " ('c', 1, 'INSERT', 'den', 'loot', '{id}')")
    assert 'was made for "mallory"' in said
    remedy = said[said.index("BEGIN;"):]
    with town.connect(user="boss") as boss:
        boss.execute(remedy)
    with town.connect(user="app") as app:
        app.execute("insert into den.loot values (2)")
    assert [(e["who"], e["new"]["id"]) for e in events(town)] == [("mallory", 1), ("clerk", 2)]
    assert town.execute("select problem from pgstream.subscription_problems(1)") == []


def test_a_table_goes_on_that_another_role_got_with_everything_of_its_owner(town):
    """REASSIGN OWNED gives the trigger functions away as well, and no grant that their owner had."""
    town.login("leaver", "pgstream_subscriber")
    town.login("heir")
    town.execute("""
        create table kept (id int, total int); create table also (id int, total int);
        alter table kept owner to leaver; alter table also owner to leaver;
        grant insert on kept, also to app""")
    with town.connect(user="leaver") as leaver:
        subscribe(leaver, table="kept", extensions=[("who", "current_user::text")])
        subscribe(leaver, "guarded", table="also", when="10 / new.total > 0",
                  extensions=[("who", "current_user::text")])
    town.execute("reassign owned by leaver to heir; drop owned by leaver")
    first = threading.Barrier(8)
    errors = []

    def write(number):
        try:
            with town.connect(user="app", autocommit=False) as app:
                app.execute("insert into kept values (%s, 1)", (number,))
                app.execute("insert into also values (%s, %s)", (number, number % 2))
                first.wait(30)
                app.commit()
        except (psycopg.Error, threading.BrokenBarrierError) as error:
            errors.append(error)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert sorted((e["tg_name"], e["who"], e["new"]["id"]) for e in events(town)) == sorted(
        [("k", "heir", number) for number in range(8)]
        + [("guarded", "heir", number) for number in (1, 3, 5, 7)])
    assert failed(town) == [("guarded", "division by zero")] * 4
    for user in ("leaver", "app", "mallory"):
        with town.connect(user=user) as session:
            session.execute("select pgstream._let_owners_write()")
            for part in ("kept", "also"):
                assert "permission denied for function" in refusal(
                    session, f"select pgstream._write_{part}(1, '{{}}', null)")


def test_the_owner_of_a_dropped_table_has_no_part_in_the_next_one_of_its_name(town):
    town.execute("grant create on schema public to mallory, clerk")
    with town.connect(user="mallory") as mallory, town.connect(user="clerk") as clerk:
        mallory.execute("create table short (id int)")
        subscribe(mallory, table="short", when="new.id / 1 > 0",
                  extensions=[("who", "current_user::text")])
        mallory.execute("drop table short")
        clerk.execute("create table short (id int)")
        clerk.execute("insert into short values (0)")
        clerk.execute("update pgstream.subscriptions set key = key")
        clerk.execute("insert into short values (1)")
        assert "permission denied" in refusal(
            mallory, "select pgstream._write_short(1, '{\"forged\": true}', null)")
    assert [(e["who"], e["new"]["id"]) for e in events(town)] == [("clerk", 1)]


def test_the_daemon_has_what_it_needs_and_no_more(town):
    town.login("streamer", "pgstream_daemon")
    subscribe(town, table="till", extensions=[("x", "1 / new.total")])
    town.execute("insert into till values (1, 0), (1, 1)")
    with town.connect(user="streamer") as daemon:
        for call in ("pgstream.add_stream(9)", "pgstream.make_partitions(2)",
                     "pgstream.partition_work()", "pgstream.clean_overflow()",
                     "pgstream.stream_status(1)", "pgstream.subscription_problems(1)",
                     "pgstream.remove_partitions()",
                     "count(*) from pgstream.events", "count(*) from pgstream.failed_events"):
            daemon.execute(f"select {call}")
        assert daemon.execute("select count(*) from pgstream.failed_events").fetchone() == (1,)
        for attempt in ("select * from till", "insert into pgstream.events default values",
                        "delete from pgstream.subscriptions", "delete from pgstream.failed_events",
                        "create table pgstream.x (id int)", "select pgstream.drop_stream(9)"):
            assert "permission denied" in refusal(daemon, attempt), attempt


def test_each_function_pins_its_path_or_is_reviewed(town):
    subscribe(town, table="till", when="new.id / 1 > 0")
    unpinned = {name for name, in town.execute("""
        select p.proname::text from pg_proc p
        where p.pronamespace in ('pgstream'::regnamespace, 'pgstream_json'::regnamespace)
          and not coalesce(p.proconfig && '{"search_path=pg_catalog, pg_temp"}', false)""")}
    assert unpinned - {"_write_till", "_keep_till"} - {"plain_row_sql"} == UNPINNED
    assert {name for name, in town.execute("""
        select p.proname::text from pg_proc p
        where p.pronamespace = 'pgstream'::regnamespace and p.prosecdef
          and p.proowner <> 'pgstream_owner'::regrole
          and p.proname !~ '^_publish_after_'""")} == set()


def test_nothing_is_looked_up_by_the_path_of_callers_and_writers(town):
    shadow(town, "".join(files().values()))
    town.execute("grant usage on schema hostile to mallory, clerk, app")
    with town.connect(user="boss") as boss:
        boss.execute(f"set search_path = {PATH}")
        boss.execute("create table public.plain (id int, name text, at timestamptz)")
        for statement in (
                "insert into pgstream.subscriptions (key, stream_id, operation, schema_name,"
                " table_name, column_names, when_clause) values"
                " ('a', 1, 'INSERT', 'public', 'plain', '{id,name,at}', 'new.id is not null'),"
                " ('b', 1, 'UPDATE', 'public', 'plain', '{id}', 'new.name like ''x%''')",
                "select pgstream.set_subscriptions(1, array(select s from pgstream.subscriptions"
                " s))",
                "insert into plain values (1, 'x', now())", "update plain set name = 'xy'",
                "select pgstream.retry_failed()", "select pgstream.make_partitions()",
                "insert into plain values (2, 'x', now())",
                "select * from pgstream.partition_work()", "select pgstream.clean_overflow()",
                "select pgstream.stream_status(1)"):
            boss.execute(statement)
    # `like` in a condition of boss' own, and what his statements name, is his.
    ran = {what for role, what in victims(town)}
    assert events(town) != [] and failed(town) == []
    assert "~~" in ran
    assert ran <= {"~~", "like", "now", "text", "name", "jsonb", "timestamptz"}, ran
