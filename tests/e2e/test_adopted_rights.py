"""adopt_outbox gives no role a right: rows are read as the owner of the table."""

import psycopg
import pytest
from support import attacks
from support.pipelines import set_outbox, to_file
from support.relay import Relay
from support.trapped_database import land, run_as  # noqa: F401
from support.waiting import eventually


# Rights -------------------------------------------------------------------------------------

def evil_table(land, name, plant=""):
    """A table of mallory's whose values, domain and policies are code of hers."""
    land.execute("grant create on schema public to mallory")
    run_as(land, "mallory",
           f"create domain {name}_d as text check (attack.ran('check of a domain'))",
           f"create type {name}_e as enum ('a', 'b')",
           f"create function {name}_json({name}_e) returns json language plpgsql as"
           " $$ begin perform attack.ran('cast'); return '1'; end $$",
           f"create cast ({name}_e as json) with function {name}_json({name}_e)",
           f"create table {name} (id bigint generated always as identity primary key,"
           f" kind {name}_d, body {name}_e default 'a', about int)",
           f"create function {name}_eq(int, int) returns boolean language plpgsql as"
           " $$ begin perform attack.ran('operator'); return true; end $$",
           f"alter table {name} enable row level security",
           f"create policy p on {name} using (attack.ran('policy'))")


def replace_reader(land, role, reader, body, definer="security definer"):
    """The owner of the function that reads an adopted table writes it anew."""
    run_as(land, role, f"""
        create or replace function pgtrickle_streams.{reader}(action text, arg jsonb)
        returns table (op text, ord bigint, row_data jsonb) language plpgsql {definer}
        set search_path = pg_catalog, pg_temp as $f$ begin {body} end $f$""")


def drain(land, outbox):
    """Reads an outbox as the relay's role does, in every way."""
    incarnation = land.one("select incarnation from pgtrickle.pgt_outbox_config"
                           " where stream_table_name = %s", (outbox,))
    rows = run_as(land, "relay_daemon",
                  f"select pgtrickle.relay_adopted_first('{incarnation}', 0)",
                  f"select pgtrickle.relay_adopted_look('g', 'p', '{incarnation}', 0, null, 1, '')",
                  f"select pgtrickle.relay_adopted_commit('g', 'p', '{incarnation}',"
                  " gen_random_uuid(), 1, null, '')",
                  f"select pgtrickle.relay_adopted_count('{incarnation}', 0)",
                  f"select * from pgtrickle.relay_first_position('{incarnation}', 'latest')",
                  f"select pgtrickle.outbox_status('{outbox}')",
                  "select * from pgtrickle.relay_check()",
                  f"select id, payload from pgtrickle.relay_adopted_rows('{incarnation}', 0,"
                  " 1000000, 100) where pgt_id is not null")
    return rows


def test_code_of_the_owner_gains_nothing(land):  # noqa: F811
    evil_table(land, "lure")
    run_as(land, "mallory",
           "select pgtrickle.adopt_outbox('lure', payload => 'body', key => 'kind',"
           " filter => '{\"about\": 1}')",
           "insert into lure (kind, about) values ('x', 1), ('y', 2)")
    with attacks.watching(land, attacks.SANDBOX):
        assert drain(land, "lure") == [(1, "a")]


def test_an_owner_who_rewrites_the_function_that_reads_gains_nothing(land):  # noqa: F811
    evil_table(land, "rewritten")
    run_as(land, "mallory",
           "select pgtrickle.adopt_outbox('rewritten', payload => 'body', key => 'kind')")
    reader = land.one("select reader from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'rewritten'")
    for definer in ("security definer", "security invoker"):
        replace_reader(land, "mallory", reader, """
            perform attack.ran('reader');
            return query select null::text, 1::bigint, case action
              when 'ids' then '"{[1,2)}"' else '{"payload": 1}' end::jsonb;""", definer)
        with attacks.watching(land, attacks.SANDBOX):
            if definer == "security definer":
                assert drain(land, "rewritten") == [(1, 1)]
            else:
                with pytest.raises(psycopg.Error, match="SECURITY DEFINER"):
                    drain(land, "rewritten")


# Durability, visibility, plans, resources, time limits, and the name of the session.
SETTINGS = {"synchronous_commit": "off", "default_transaction_read_only": "on",
            "default_transaction_isolation": "serializable", "row_security": "off",
            "enable_indexscan": "off", "plan_cache_mode": "force_custom_plan", "work_mem": "64kB",
            "statement_timeout": "1h", "application_name": "another",
            "pg_trickle.user_triggers": "off"}


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_the_owner_stays_in_the_session_that_reads(land, setting):  # noqa: F811
    name = f"steered_{setting.replace('.', '_')}"
    evil_table(land, name)
    run_as(land, "mallory",
           f"select pgtrickle.adopt_outbox('{name}', payload => 'body', key => 'kind')",
           f"insert into {name} (kind) values ('x')")
    reader, incarnation = land.execute("select reader, incarnation from pgtrickle.pgt_outbox_config"
                                       " where stream_table_name = %s", (name,))[0]
    for only_here in ("false", "true"):
        replace_reader(land, "mallory", reader, f"""
            perform set_config('{setting}', '{SETTINGS[setting]}', {only_here});
            return query select null::text, 1::bigint, '{{"payload": 1}}'::jsonb;""")
        with land.connect(user="relay_daemon", autocommit=only_here == "false") as relay:
            before = relay.execute("select current_setting(%s, true)", (setting,)).fetchone()[0]
            with pytest.raises(psycopg.Error, match=f"leaves another {setting} behind"):
                relay.execute("select * from pgtrickle.relay_adopted_rows(%s, 0, 10, 10)",
                              (incarnation,))
            relay.rollback()
            assert (relay.execute("select current_setting(%s, true)", (setting,)).fetchone()[0]
                    or None) == (before or None)


def test_the_gate_compares_every_setting_that_any_role_may_change(land):  # noqa: F811
    """On every version of PostgreSQL. The path and the transaction's isolation are looked at in other
    ways."""
    assert land.execute("""
        select name from pg_settings
        where context = 'user' and name not in ('search_path', 'transaction_isolation')
          and not (pgtrickle_internal.gate_state() -> 'setting') ? name
          and name <> all (pgtrickle_internal.gate_other_settings())""") == []


def listen_when_read(land, name):
    """A table of mallory's; the function that reads it for the relay calls LISTEN."""
    evil_table(land, name)
    run_as(land, "mallory",
           f"select pgtrickle.adopt_outbox('{name}', payload => 'body', key => 'kind')")
    reader, incarnation = land.execute("select reader, incarnation from pgtrickle.pgt_outbox_config"
                                       " where stream_table_name = %s", (name,))[0]
    source = land.one("select pg_get_functiondef(oid) from pg_proc where proname = %s", (reader,))
    begin = source.index("begin\n")
    run_as(land, "mallory", f"{source[:begin]}begin\nexecute 'listen flood';{source[begin + 5:]}")
    return incarnation


def test_the_session_that_reads_listens_to_nothing_that_the_owner_chose(land):  # noqa: F811
    incarnation = listen_when_read(land, "overheard")
    read = "select * from pgtrickle.relay_adopted_rows(%s, 0, 10, 10)"
    channels = "select array(select pg_listening_channels())"
    with land.connect(user="relay_daemon", autocommit=True) as relay:
        relay.execute(read, (incarnation,))
        assert relay.execute(channels).fetchone()[0] == []
        relay.execute("listen own")  # an administrator's session may listen
        relay.execute(read, (incarnation,))
        assert "own" in relay.execute(channels).fetchone()[0]


def test_notifications_that_the_owner_listens_to_are_not_kept(land, tmp_path):  # noqa: F811
    incarnation = listen_when_read(land, "loud")
    set_outbox(land, "noise", to_file("loud", tmp_path / "out.jsonl"))
    position = ("select last_change_id from pgtrickle.relay_consumer_offsets"
                " where incarnation = %s")
    with Relay(land.relay_dsn) as relay:
        relay.wait_healthy(pipelines=1)
        for wave in range(20):
            if wave == 4:
                settled = relay.resident_kib()
            land.execute("select pg_notify('flood', repeat('x', 7900) || n)"
                         " from generate_series(1, 500) n")
            last = run_as(land, "mallory", "insert into loud (kind) values ('x') returning id")[0][0]
            eventually(lambda: land.one(position, (incarnation,)) == last, 20,
                       message=lambda: relay.log(20))
        assert relay.resident_kib() - settled < 16 * 1024  # 60 MB were sent since then


def test_only_its_owner_may_adopt_a_table_and_end_that(land):  # noqa: F811
    land.execute("create table ledger (id bigint generated always as identity primary key,"
                 " payload jsonb)")
    land.execute("grant all on ledger to mallory")
    with pytest.raises(psycopg.Error, match="must be owner of table public.ledger"):
        run_as(land, "mallory", "select pgtrickle.adopt_outbox('ledger')")
    with pytest.raises(psycopg.Error, match="permission denied"):
        run_as(land, "eve", "select pgtrickle.adopt_outbox('ledger')")
    land.execute("select pgtrickle.adopt_outbox('ledger')")
    number = land.one("select outbox_number from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'ledger'")
    for call in ("select pgtrickle.disable_outbox('ledger')",
                 f"select pgtrickle_internal.outbox_adopted_drop({number})",
                 f"select pgtrickle_internal.outbox_drop({number})"):
        with pytest.raises(psycopg.Error, match="owner|application"):
            run_as(land, "mallory", call)
    assert land.one("select count(*) from pgtrickle.pgt_outbox_config"
                    " where stream_table_name = 'ledger'") == 1


def test_an_administrator_cannot_store_an_outbox_that_its_owner_did_not_adopt(land):  # noqa: F811
    land.execute("create table vault (id bigint generated always as identity primary key,"
                 " payload jsonb); select pgtrickle.adopt_outbox('vault')")
    with pytest.raises(psycopg.Error, match="must be owner of table"):
        run_as(land, "mallory", """
            select pgtrickle_internal.outbox_adopted_store(null, 'stolen', k, c.reader)
            from pgtrickle_internal.outbox_adopted k
            join pgtrickle.pgt_outbox_config c using (outbox_number)
            where c.stream_table_name = 'vault'""")


def test_the_relay_and_administrators_get_no_right_on_the_table(land):  # noqa: F811
    land.execute("create schema closed; create table closed.box (id bigint generated always as"
                 " identity primary key, payload jsonb);"
                 "select pgtrickle.adopt_outbox('closed.box'); insert into closed.box (payload)"
                 " values ('1')")
    for role in ("pgtrickle_relay", "pgtrickle_owner", "pgtrickle_sandbox", "pgtrickle_admin"):
        assert land.one("select count(*) from unnest(array['select', 'insert', 'update', 'delete',"
                        " 'truncate', 'references', 'trigger']) p"
                        " where has_table_privilege(%s, 'closed.box', p)", (role,)) == 0, role
    assert drain(land, "box") == [(1, 1)]


def test_an_open_writer_of_any_other_table_is_not_shown(land):  # noqa: F811
    land.execute("create table private (id bigint generated always as identity primary key)")
    with land.connect(autocommit=False) as writer:
        writer.execute("insert into private default values")
        assert run_as(land, "relay_daemon",
                      "select * from pgtrickle.relay_open_writers('private')") == []


def test_a_table_that_is_given_to_another_role_is_not_read_by_code_of_the_former_owner(land):  # noqa: F811
    """REASSIGN OWNED gives the function that reads to the new owner, together with the table."""
    land.login("leaver", "pgtrickle_admin")
    land.execute("create table given (id bigint generated always as identity primary key,"
                 " payload jsonb); alter table given owner to leaver")
    run_as(land, "leaver", "select pgtrickle.adopt_outbox('given')")
    reader = land.one("select reader from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'given'")
    replace_reader(land, "leaver", reader, "perform attack.ran('reader');")
    land.execute("reassign owned by leaver to postgres")
    with attacks.watching(land, attacks.SANDBOX):
        with pytest.raises(psycopg.Error, match="belongs to postgres now, and was adopted by leaver"):
            drain(land, "given")
    land.execute("select pgtrickle.adopt_outbox('given'); insert into given (payload) values ('1')")
    with attacks.watching(land, attacks.SANDBOX):
        assert drain(land, "given") == [(1, 1)]


def test_an_administrator_cannot_store_an_outbox_with_the_sequence_of_another_owner(land):  # noqa: F811
    land.execute("create table till (id bigint generated always as identity primary key,"
                 " payload jsonb); select pgtrickle.adopt_outbox('till')")
    run_as(land, "mallory",
           "create table own (id bigint generated always as identity primary key, payload jsonb)",
           "select pgtrickle.adopt_outbox('own')")
    reader = land.one("select reader from pgtrickle.pgt_outbox_config"
                      " where stream_table_name = 'own'")
    run_as(land, "mallory", f"""
        do $f$
        begin
          execute format('comment on function pgtrickle_streams.{reader}(text, jsonb) is %L',
                         pgtrickle_internal.outbox_mark());
          perform pgtrickle_internal.outbox_adopted_store(null, 'peek', jsonb_populate_record(
            null::pgtrickle_internal.outbox_adopted,
            to_jsonb(k) || jsonb_build_object('sequence', 'till_id_seq'::regclass::oid)), '{reader}')
          from pgtrickle_internal.outbox_adopted k where k.relation = 'own'::regclass;
        end $f$""")
    assert land.execute("select outbox_sequence::oid::regclass::text from pgtrickle.pgt_outbox_config"
                        " where stream_table_name in ('own', 'peek')") == [("own_id_seq",)] * 2
