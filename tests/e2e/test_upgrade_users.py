"""Upgrades keep what users and administrators made on the objects of the earlier version:
privileges, views, functions, constraints. What cannot be kept is named before anything changes."""

import os
import re
import subprocess

import psycopg
import pytest
from support import earlier_versions as earlier
from support.fixtures import need
from support.manifest import installed_lines, recorded_lines
from support.processes import temporary_directory

CONFIGS = ("relay_outbox_config", "relay_inbox_config", "relay_bridge_config")
# The first version, in which these three are tables.
FIRST = 1


@pytest.fixture
def first(empty_db, relay_bin, tmp_path):
    """A database of the first version, with data."""
    earlier.install_version(empty_db.dsn, FIRST)
    earlier.fill(empty_db.dsn, tmp_path / "unused.jsonl")
    return empty_db


# What others made on what is replaced -------------------------------------------------------------

# Each statement, and how the refusal names what it makes.
MADE = (
    ("create view shown as select name, enabled from pgtrickle.relay_outbox_config",
     "view public.shown"),
    ('create view "Shown too" as select * from public.shown', 'view public."Shown too"'),
    ("create materialized view counted as select count(*) from pgtrickle.relay_inbox_config",
     "materialized view public.counted"),
    ("create view inside as select name from pgtrickle._relay_catalog", "view public.inside"),
    ("create function counting() returns bigint "
     "begin atomic select count(*) from public.shown; end",
     "function public.counting()"),
    ("create function taking(pgtrickle.relay_inbox_config) returns int language sql as 'select 1'",
     "function public.taking(pgtrickle.relay_inbox_config)"),
    ("create table notes (pipeline text references pgtrickle.relay_outbox_config "
     "on delete cascade)",
     "constraint notes_pipeline_fkey on table public.notes"),
    ("create rule also as on insert to public.notes do also select 1 from "
     "pgtrickle.relay_bridge_config", "rule also on table public.notes"),
    ("create trigger audit after insert on pgtrickle.relay_outbox_config for each row "
     "execute function public.audited()", "trigger audit on table pgtrickle.relay_outbox_config"),
    ("create publication told for table pgtrickle.relay_inbox_config",
     "publication of table pgtrickle.relay_inbox_config in publication told"),
    ("alter table pgtrickle.relay_bridge_config add column team text",
     "column team of table pgtrickle.relay_bridge_config"),
    ("create index by_state on pgtrickle.relay_outbox_config (enabled)",
     "index pgtrickle.by_state"),
    ("alter table pgtrickle.relay_inbox_config enable row level security",
     "row security of table pgtrickle.relay_inbox_config"),
    ("create policy all_of_it on pgtrickle.relay_inbox_config using (true)",
     "policy all_of_it on table pgtrickle.relay_inbox_config"),
    ("create table holds (c pgtrickle.relay_outbox_config)", "column c of table public.holds"),
    ("create table child () inherits (pgtrickle.relay_bridge_config)", "table public.child"),
    ("create statistics correlated on name, enabled from pgtrickle.relay_outbox_config",
     "statistics object public.correlated"),
    ("alter table pgtrickle.relay_outbox_config add constraint short check (length(name) < 99)",
     "constraint short on table pgtrickle.relay_outbox_config"),
)
AUDITED = "create function audited() returns trigger language plpgsql as 'begin return null; end'"


def test_what_cannot_follow_is_named_before_anything_changes(first, pg_server):
    first.execute(AUDITED)
    for statement, _ in MADE:
        first.execute(statement)
    before = sorted(earlier.dump(pg_server, first.dsn))
    done = earlier.init(first.dsn)
    assert done.returncode != 0
    for _, name in MADE:
        assert re.search(f"[:,] {re.escape(name)}[, ]", done.stderr), (name, done.stderr)
    assert "(Nothing was changed.)" in done.stderr
    assert not re.search("(?i)drop .*cascade", done.stderr)
    assert sorted(earlier.dump(pg_server, first.dsn)) == before


@pytest.mark.parametrize("statement, name", MADE, ids=[name for _, name in MADE])
def test_each_of_them_alone_is_named(empty_db, relay_bin, statement, name):
    earlier.install_version(empty_db.dsn, FIRST)
    empty_db.execute(AUDITED)
    needed = "create view public.shown as select 1 from pgtrickle.relay_outbox_config"
    if "public.shown" in statement:
        empty_db.execute(needed)
    if "to public.notes" in statement:
        empty_db.execute("create table notes (pipeline text)")
    empty_db.execute(statement)
    done = earlier.init(empty_db.dsn)
    assert done.returncode != 0 and name in done.stderr and "Nothing was changed" in done.stderr


KEPT = """
grant select on pgtrickle.relay_outbox_config to keeper;
create view public.shown with (security_barrier) as
  select name, enabled from pgtrickle.relay_outbox_config;
grant select on public.shown to reader;
comment on view public.shown is 'of the dashboard';
alter view public.shown owner to keeper;
create view public."Shown too" as select * from public.shown;
create materialized view public.counted as select count(*) from pgtrickle.relay_inbox_config;
create unique index on public.counted (count);
create function public.counting() returns bigint
  begin atomic select count(*) from public.shown; end;
alter function public.counting() owner to keeper;
revoke all on function public.counting() from public;
grant execute on function public.counting() to reader;
create table public.notes (
  pipeline text references pgtrickle.relay_outbox_config on delete cascade);
grant insert, delete on public.notes to public; insert into public.notes values ('rows');
create function public.audited() returns trigger language plpgsql as
  'begin insert into public.notes values (new.name); return null; end';
create trigger audit after insert on pgtrickle.relay_outbox_config for each row
  execute function public.audited();
create publication told for table pgtrickle.relay_outbox_config;
"""

KEPT_STATE = """
select c.relname::text, c.relowner::regrole::text, c.relacl::text, c.reloptions::text,
       obj_description(c.oid), (select count(*) from pg_index i where i.indrelid = c.oid)
from pg_class c where c.relname in ('shown', 'Shown too', 'counted')
union all
select p.proname, p.proowner::regrole::text, p.proacl::text, null, null, 0
from pg_proc p where p.proname = 'counting'
order by 1"""


def run_as_shell(server, database, text, directory):
    """What the remedy says, line by line: commands of the shell, and statements."""
    environment = {**os.environ, "PATH": f"{server.bin}:{os.environ['PATH']}",
                   "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres",
                   "PGPASSWORD": "s3cret-for-tests", "PGDATABASE": database.name}

    def run(argv, **options):
        done = subprocess.run(argv, cwd=directory, env=environment, text=True, capture_output=True,
                              **options)
        assert done.returncode == 0, done.stderr
    statements = ["\\set ON_ERROR_STOP"]
    for line in [*text.splitlines(), "psql"]:
        if re.match("pg_dump|psql|pgtrickle-relay init", line):
            run(["psql", "-X"], input="\n".join(statements))
            statements = ["\\set ON_ERROR_STOP"]
            if line == "pgtrickle-relay init":
                earlier.installed(database.dsn)
            elif line != "psql":
                run(["sh", "-c", line])
        else:
            statements.append(line)


def test_a_dump_carries_over_what_the_refusal_names(first, pg_server):
    version = subprocess.run([f"{pg_server.bin}/pg_dump", "--version"], capture_output=True,
                             text=True, check=True).stdout
    need(f" {pg_server.version}." in version, "a pg_dump of this server's version")
    with first.connect() as connection:
        for role in ("keeper", "reader"):
            connection.execute(f"drop role if exists {role}")
        connection.execute("create role keeper; create role reader; "
                           "grant create on schema public to keeper")
    first.execute(KEPT)
    before = first.execute(KEPT_STATE)
    done = earlier.init(first.dsn)
    assert done.returncode != 0
    remedy = done.stderr.split("create it again:\n", 1)[1]
    run_as_shell(pg_server, first, remedy, temporary_directory("saved"))
    assert first.execute(KEPT_STATE) == before
    assert first.one("select name from public.shown") == "rows"
    assert first.one("select public.counting()") == 1
    assert first.one("select tablename from pg_publication_tables where pubname = 'told'"
                     ) == "relay_config"
    first.execute("select pgtrickle.set_relay_outbox('more', "
                  "'{\"source\": {\"outbox\": \"orders\"}, \"sink\": {\"type\": \"stdout\"}}')")
    assert first.execute("select pipeline from public.notes order by 1") == [("more",), ("rows",)]
    first.execute("select pgtrickle.delete_relay('more')")
    assert first.execute("select pipeline from public.notes") == [("rows",)]
    first.execute("drop owned by keeper cascade; drop role keeper; drop owned by reader; "
                  "drop role reader")


def test_views_on_what_stays_are_kept(first):
    first.execute("create view mine as select name, enabled from pgtrickle.relay_pipelines;"
                  "create view outboxes as "
                  "select outbox_table_name from pgtrickle.pgt_outbox_config;"
                  "create table of_outbox (n int references pgtrickle.pgt_outbox_config)")
    earlier.installed(first.dsn)
    assert first.one("select count(*) from mine") == 3
    assert first.one("select count(*) from outboxes") == 6
    first.execute("insert into of_outbox select outbox_number from pgtrickle.pgt_outbox_config")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        first.execute("insert into of_outbox values (-1)")


# Privileges ---------------------------------------------------------------------------------------

GRANTED = """
grant select, insert on pgtrickle.relay_outbox_config to reporting;
grant update, delete on pgtrickle.relay_outbox_config to reporting with grant option;
grant select (name, enabled), update (enabled) on pgtrickle.relay_inbox_config to reporting;
grant select (name) on pgtrickle.relay_inbox_config to second with grant option;
grant select on pgtrickle.relay_bridge_config to public;
grant select (outbox_table_name) on pgtrickle.pgt_outbox_config to reporting with grant option;
grant update (retention_hours) on pgtrickle.pgt_outbox_config to second;
grant select on pgtrickle.pgt_stream_tables to public;
grant select on pgtrickle.relay_dlq to public;
grant select (name) on pgtrickle.relay_bridge_config to public;
"""
NAMES = (*CONFIGS, "pgt_outbox_config", "pgt_stream_tables", "pgt_refresh_history", "relay_dlq")

# What each role can do by each name, as far as a view allows it.
RIGHTS = """
select n.name, r.rolname, p.privilege, null::text,
       has_table_privilege(r.oid, 'pgtrickle.' || n.name, p.privilege || g.suffix)
from unnest(%(names)s::text[]) n (name) cross join (values (''), (' WITH GRANT OPTION')) g (suffix)
cross join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) p (privilege)
cross join pg_roles r
where r.rolname in ('reporting', 'second', 'stranger', 'pgtrickle_relay', 'pgtrickle_admin')
union all
select n.name, r.rolname, p.privilege || g.suffix, a.attname::text,
       has_column_privilege(r.oid, 'pgtrickle.' || n.name, a.attname, p.privilege || g.suffix)
from unnest(%(names)s::text[]) n (name) cross join (values (''), (' WITH GRANT OPTION')) g (suffix)
cross join (values ('SELECT'), ('INSERT'), ('UPDATE')) p (privilege)
cross join pg_roles r
join pg_attribute a on a.attrelid = ('pgtrickle.' || n.name)::regclass and a.attnum > 0
  and not a.attisdropped
where r.rolname in ('reporting', 'second', 'stranger', 'pgtrickle_relay', 'pgtrickle_admin')
  and a.attname = any (%(columns)s)
order by 1, 2, 3, 4, 5"""


@pytest.fixture
def roles(first):
    """Roles to which an administrator grants something."""
    for role in ("reporting", "second", "stranger"):
        first.login(role)
    yield
    for role in ("reporting", "second", "stranger"):
        first.execute(f"drop owned by {role} cascade; drop role {role}")


def rights(db, columns=None):
    """What the roles may do, and the names of the columns that were asked about."""
    columns = columns or [name for (name,) in db.execute(
        "select distinct attname::text from pg_attribute where attnum > 0 and attrelid = "
        "any (select ('pgtrickle.' || n)::regclass from unnest(%s::text[]) n)", (list(NAMES),))]
    return db.execute(RIGHTS, {"names": list(NAMES), "columns": columns}), columns


def test_what_roles_could_do_they_can_do_afterwards_and_no_more(first, roles):
    first.execute(GRANTED)
    first.execute("alter default privileges grant all on tables to stranger, public")
    before, columns = rights(first)
    earlier.installed(first.dsn)
    now = rights(first, columns)[0]
    assert [row for row in now if row not in before] == []
    assert [row for row in before if row not in now] == []
    # A later init leaves them, too.
    first.execute("update pgtrickle.relay_schema_history set checksum = 'x'")
    earlier.installed(first.dsn)
    assert rights(first, columns)[0] == now


def test_a_role_goes_on_with_its_statements(first, roles):
    first.execute(GRANTED + "grant usage on schema pgtrickle to reporting, second")
    statements = {
        "reporting": "select config from pgtrickle.relay_outbox_config where name = 'rows';"
                     "delete from pgtrickle.relay_outbox_config where name = 'none';"
                     "select name, enabled from pgtrickle.relay_inbox_config;"
                     "select * from pgtrickle.relay_bridge_config;"
                     "select outbox_table_name from pgtrickle.pgt_outbox_config;"
                     "grant delete on pgtrickle.relay_outbox_config to second",
        "second": "select name from pgtrickle.relay_inbox_config;"
                  "update pgtrickle.pgt_outbox_config set retention_hours = 25"}
    for _ in range(2):
        for role, text in statements.items():
            with first.connect(user=role) as session:
                for statement in text.split(";"):
                    session.execute(statement)
                for table in ("pgt_outbox_config", "relay_inbox_config"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        session.execute(f"select * from pgtrickle.{table}")
        earlier.installed(first.dsn)


def test_comments_on_columns_are_kept(first):
    first.execute("comment on column pgtrickle.relay_inbox_config.config is 'see the wiki'")
    earlier.installed(first.dsn)
    assert first.one("select col_description('pgtrickle.relay_inbox_config'::regclass, 3)"
                     ) == "see the wiki"


# Event triggers -----------------------------------------------------------------------------------

AUDIT = """
create schema audit;
create table audit.seen (tag text, object text, who name default current_user);
grant usage on schema audit to public;
grant insert on audit.seen to public;
create function audit.made() returns event_trigger language plpgsql {rights} as $$
begin
  insert into audit.seen (tag, object)
  select c.command_tag, c.object_identity from pg_event_trigger_ddl_commands() c;
end $$;
create function audit.gone() returns event_trigger language plpgsql {rights} as $$
begin
  insert into audit.seen (tag, object)
  select 'DROP', o.object_identity from pg_event_trigger_dropped_objects() o;
end $$;
create event trigger audit_made on ddl_command_end execute function audit.made();
create event trigger audit_gone on sql_drop execute function audit.gone();
"""


def lacks(db):
    """What an installation makes, and this database lacks, or has with another owner or
    definition."""
    with db.connect() as connection:
        return set(recorded_lines()) - set(installed_lines(connection))


@pytest.mark.parametrize("rights", ["security invoker", "security definer"])
@pytest.mark.parametrize("version", [*earlier.VERSIONS, None], ids=lambda v: f"from-{v}" if v else "fresh")
def test_event_triggers_that_record_see_all_of_init_and_change_nothing(
        empty_db, relay_bin, tmp_path, version, rights):
    before = None
    if version:
        earlier.install_version(empty_db.dsn, version)
        earlier.fill(empty_db.dsn, tmp_path / "unused.jsonl")
        before = earlier.counts(empty_db.dsn)
    empty_db.execute(AUDIT.format(rights=rights))
    if rights == "security definer":  # of a role that may do nothing else
        empty_db.login("auditor")
        empty_db.execute("alter function audit.made() owner to auditor;"
                         "alter function audit.gone() owner to auditor")
    assert earlier.installed(empty_db.dsn).stderr == ""
    assert empty_db.one("select count(distinct object) from audit.seen") > 500
    assert lacks(empty_db) == set()
    if version:
        assert earlier.counts(empty_db.dsn) == before
        assert empty_db.one("select count(*) from pgtrickle_internal.superseded") == 0


REFUSING = """
create function refuse() returns event_trigger language plpgsql as $$
begin raise exception 'no changes on Fridays'; end $$;
create event trigger refusing on ddl_command_end execute function refuse();
"""


def test_an_event_trigger_that_refuses_changes_is_named_and_nothing_changes(first, pg_server):
    first.execute(REFUSING)
    before = sorted(earlier.dump(pg_server, first.dsn))
    done = earlier.init(first.dsn)
    assert done.returncode != 0 and "no changes on Fridays" in done.stderr
    assert "nothing was changed" in done.stderr
    assert sorted(earlier.dump(pg_server, first.dsn)) == before
    first.execute(re.search("ALTER EVENT TRIGGER refusing DISABLE;", done.stderr)[0])
    earlier.installed(first.dsn)


def test_an_event_trigger_that_keeps_superseded_functions_keeps_nothing_else(first):
    first.execute("""
        create function keep() returns event_trigger language plpgsql as $$
        begin
          if exists (select from pg_event_trigger_dropped_objects() o
                     where o.object_type = 'function'
                       and o.object_identity like 'pgtrickle.\\_%') then
            raise exception 'functions are not dropped on Fridays';
          end if;
        end $$;
        create event trigger keeping on sql_drop execute function keep()""")
    done = earlier.installed(first.dsn)
    assert "could not be dropped" in done.stderr and "functions are not dropped" in done.stderr
    first.execute("insert into orders values (100, 'x', 1)")
    assert first.one("select max(inserted_count) from pgtrickle.outbox_orders") is not None
    report = first.one("select pgtrickle.relay_housekeeping()")
    assert "functions are not dropped on Fridays" in str(report)
    first.execute("alter event trigger keeping disable")
    assert earlier.installed(first.dsn).stderr == ""
    assert lacks(first) == set()
