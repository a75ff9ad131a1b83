"""Whichever role promotes or publishes: what the owner of the tables has planted runs as that owner."""

import psycopg
import pytest

from support import attacks
from support.attacks import watching
from support.postgres import refusal
from support.trapped_database import land, run_as, session  # noqa: F401

# A query that runs code of its owner's: planned, executed, as an operator and as a cast.
PLANT = """
create table {t}_source (id int primary key, n int);
insert into {t}_source values (1, 1), (2, 2);
create type {t}_mood as enum ('a', 'b');
create function {t}_f({t}_mood) returns text language plpgsql as
  $f$ begin perform attack.ran('cast'); return 'x'; end $f$;
create cast ({t}_mood as text) with function {t}_f({t}_mood) as implicit;
create function {t}_json({t}_mood) returns json language plpgsql as
  $f$ begin perform attack.ran('cast to json'); return '1'; end $f$;
create cast ({t}_mood as json) with function {t}_json({t}_mood) as implicit;
create function {t}_equals({t}_mood, {t}_mood) returns boolean language plpgsql as
  $f$ begin return attack.ran('operator'); end $f$;
create operator = (leftarg = {t}_mood, rightarg = {t}_mood, function = {t}_equals)"""
QUERY = ("select id, n + case when attack.immutable('planned') then 0 else 1 end as n, "
         "attack.ran('query') as ran, 'a'::{t}_mood as mood from {t}_source where attack.immutable('planned')")
COLUMNS = QUERY.replace(" from", ", 'b'::{t}_mood as new, attack.ran('new column') as another from")
CALLERS = ["boss", "mallory"]


def make(db, t):
    run_as(db, "mallory", *PLANT.format(t=t).split(";\n"),
           f"select pgtrickle.create_stream_table('{t}', $${QUERY.format(t=t)}$$, 'manual')",
           f"select pgtrickle.enable_outbox('{t}')",
           f"select pgtrickle.create_stream_table('{t}_green', $${COLUMNS.format(t=t)}$$, 'manual')",
           f"insert into {t}_source values (3, 3)",
           # What the query calls was replaced: it is looked at again, and planned, as a part of it.
           "create or replace function attack_again() returns int language sql as 'select 1'",
           f"create or replace function {t}_equals({t}_mood, {t}_mood) returns boolean language plpgsql as "
           "$f$ begin return attack.ran('operator again'); end $f$")


@pytest.mark.parametrize("caller", CALLERS)
def test_what_the_query_runs_is_its_owners(land, caller):  # noqa: F811
    t = f"q_{caller}"
    make(land, t)
    with watching(land):
        session(land, caller).execute(f"select pgtrickle.promote_stream_table('{t}', '{t}_green')")
    assert land.one(f"select count(*) from pgtrickle.outbox_{t}") == 1
    assert land.one(f"select count(*) from {t} where new is not null") == 3


@pytest.mark.parametrize("where", ["", "_green"])
def test_what_is_planted_on_the_tables_runs_as_their_owner(land, where):  # noqa: F811
    promoted = 0
    for number, (name, plant) in enumerate(attacks.TABLE_PLANTS.items()):
        if name == "cascade":
            continue  # needs a primary key
        t = f"p{where}{number}"
        make(land, t)
        run_as(land, "mallory", plant.format(t=t + where, w=f"'{name}'"))
        with watching(land):
            try:
                session(land, "boss").execute(f"select pgtrickle.promote_stream_table('{t}', '{t}_green')")
                promoted += 1
            except psycopg.Error as error:
                assert error.sqlstate != "XX000", name
    assert promoted >= 5, "hardly anything was tried"


def test_stored_text_is_no_statement_of_the_caller(land):  # noqa: F811
    """What an owner has put into the catalog is not executed by the role that promotes."""
    make(land, "stored")
    land.execute("update pgtrickle.pgt_stream_tables set defining_query = "
                 "'select 1); alter role mallory superuser; select (1', original_query = 'x); drop table treasure' "
                 "where pgt_name like 'stored%'")
    with watching(land):
        session(land, "boss").execute("select pgtrickle.promote_stream_table('stored', 'stored_green')")
    assert not land.one("select rolsuper from pg_roles where rolname = 'mallory'")


def test_only_the_owner_of_both_promotes(land):  # noqa: F811
    for owner, name in (("mallory", "of_mallory"), ("clerk", "of_clerk")):
        land.execute("grant select, trigger on treasure to mallory, clerk; grant create on schema public to clerk")
        run_as(land, owner, f"select pgtrickle.create_stream_table('{name}', 'select id from treasure', null)")
    for caller, chosen, name in (("mallory", "of_mallory", "of_clerk"), ("mallory", "of_clerk", "of_mallory"),
                                 ("clerk", "of_mallory", "of_clerk"), ("app", "of_clerk", "of_mallory"),
                                 ("eve", "of_mallory", "of_mallory")):
        said = refusal(session(land, caller), f"select pgtrickle.promote_stream_table('{name}', '{chosen}')")
        assert "must be owner" in said or "permission denied" in said, said
    # A superuser may act for both, and the query still has one owner.
    said = refusal(session(land, "boss"), "select pgtrickle.promote_stream_table('of_clerk', 'of_mallory')")
    assert "do not belong to one role" in said and "as clerk" in said
    # The parts do not do it either.
    ids = dict(land.execute("select pgt_name, pgt_id from pgtrickle.pgt_stream_tables where pgt_name like 'of_%'"))
    mallory = session(land, "mallory")
    for blue, green in (("of_clerk", "of_mallory"), ("of_mallory", "of_clerk"), ("of_mallory", "of_mallory")):
        mallory.execute("select pgtrickle_internal.stream_lock(%s)", (ids["of_clerk"],))
        assert "are not being promoted here" in refusal(
            mallory, f"select pgtrickle_internal.stream_promote_into({ids[blue]}, {ids[green]})")


def test_a_filter_is_read_as_its_writer_and_never_evaluated(land):  # noqa: F811
    run_as(land, "mallory", "create table filtered (id int primary key, n int)",
           "create function sly(int) returns boolean language plpgsql immutable as "
           "$$ begin return attack.ran('filter'); end $$")
    land.execute(f"grant create on database {land.name} to mallory")
    with watching(land):
        for where in ("sly(id)", "attack.ran('filter')", "id in (select id from treasure)",
                      "id > 1); alter role mallory superuser; select (1",
                      "true) with (publish = 'insert'); alter role mallory superuser; "
                      "create publication sly for table filtered where (true"):
            for caller in CALLERS[1:]:
                refusal(session(land, caller), "select pgtrickle.create_publication('filtered', null, "
                        f"$w${where}$w$)")
    assert not land.one("select rolsuper from pg_roles where rolname = 'mallory'")
    assert land.one("select count(*) from pg_publication") == 0
