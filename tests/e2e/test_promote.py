"""promote_stream_table: the logical table takes over another query, and its consumers the difference."""

import threading

import psycopg
import pytest

from support.postgres import refusal
from support.stream_tables import Listener, create, orders, refresh, settled, state  # noqa: F401
from support.waiting import eventually

NEW_QUERY = "select region, sum(amount) as revenue from orders where amount > 10 group by 1"
OLD_QUERY = "select region, sum(amount) as revenue from orders group by 1"
PROMOTED = {"action": "DIFFERENTIAL", "columns_added": []}


@pytest.fixture
def both(orders):  # noqa: F811
    """Stream tables `totals`, which consumers know, and `green`, which is to be promoted."""
    create(orders, "totals", OLD_QUERY)
    create(orders, "green", NEW_QUERY, "5s", "FULL")
    return orders


def promote(db, name="totals", chosen="green"):
    return db.one("select pgtrickle.promote_stream_table(%s, %s)", (name, chosen))


def catalog(db, name="totals"):
    columns = "pgt_relid::oid, original_query, schedule, refresh_mode, status, key_columns, key_derived"
    return db.execute(f"select {columns} from pgtrickle.pgt_stream_tables where pgt_name = %s", (name,))[0]


def deltas(db, name="totals"):
    return [payload for (payload,) in db.execute(
        f"select payload from pgtrickle.outbox_{name} order by id")]


def is_query(db, query, name="totals"):
    return db.execute(f"(table {name} except all {query}) union all ({query} except all table {name})") == []


# What it does -----------------------------------------------------------------------------------

def test_the_difference_is_one_delta(both):
    both.execute("select pgtrickle.enable_outbox('totals')")
    before = catalog(both)
    done = promote(both)
    assert done | PROMOTED == done and (done["inserted"], done["updated"], done["deleted"]) == (0, 0, 1)
    (delta,) = deltas(both)
    assert delta["inserted"] == [] and delta["deleted"] == [{"region": "asia", "revenue": 7}]
    assert "full_refresh" not in delta
    assert is_query(both, NEW_QUERY)
    after = catalog(both)
    assert after[0] == before[0], "the logical table is another relation"
    assert after[1:] == (NEW_QUERY, "5s", "FULL", "ACTIVE", ["region"], True)
    assert both.one("select to_regclass('green')") is None
    assert both.execute("select pgt_name from pgtrickle.pgt_stream_tables") == [("totals",)]


def test_it_goes_on_by_the_new_query(both):
    both.execute("select pgtrickle.enable_outbox('totals')")
    promote(both)
    both.execute("insert into orders (region, amount) values ('asia', 11), ('africa', 3)")
    assert refresh(both, "totals")["action"] == "FULL"
    both.execute("select pgtrickle.alter_stream_table('totals', '1ms', 'AUTO')")
    both.execute("insert into orders (region, amount) values ('africa', 30)")
    settled(both)
    assert is_query(both, NEW_QUERY)
    both.execute("select pgtrickle.alter_stream_table('totals', query => %s)", (OLD_QUERY,))
    settled(both)
    assert is_query(both, OLD_QUERY)
    both.execute("select pgtrickle.drop_stream_table('totals')")
    assert both.execute("select from pg_class where relnamespace = 'pgtrickle_streams'::regnamespace") == []
    assert both.execute("select from pg_proc where pronamespace = 'pgtrickle_streams'::regnamespace") == []


def test_a_green_table_that_lags_is_brought_up_to_date(both):
    both.execute("insert into orders (region, amount) values ('europe', 1000), ('asia', 70)")
    refresh(both, "totals")
    promote(both)
    assert is_query(both, NEW_QUERY)


def test_what_hangs_on_the_table_stays(both):
    both.execute("""
        create table audit (op text, region text);
        create function note() returns trigger language plpgsql as
          $$ begin insert into public.audit values (tg_op, coalesce(new.region, old.region)); return null; end $$;
        create trigger noted after insert or update or delete on totals for each row execute function note();
        create view shown as select * from totals;
        create publication mine for table totals;
        create role promote_reader; grant select on totals to promote_reader""")
    both.execute("select pgtrickle.enable_outbox('totals', key_columns => array['region'])")
    incarnation = both.one("select incarnation from pgtrickle.relay_outboxes")
    promote(both)
    assert both.execute("table audit") == [("DELETE", "asia")]
    assert is_query(both, NEW_QUERY, "shown")
    assert both.execute("select tablename from pg_publication_tables where pubname = 'mine'") == [("totals",)]
    assert both.one("select has_table_privilege('promote_reader', 'totals', 'select')")
    assert both.one("select incarnation from pgtrickle.relay_outboxes") == incarnation
    both.execute("revoke all on totals from promote_reader; drop role promote_reader")


def test_it_is_announced_under_the_logical_name(both):
    listener = Listener(both)
    promote(both)
    (alert,) = listener.alerts("refresh_completed")
    assert (alert["stream_table"], alert["changes"]["deleted"]) == ("public.totals", 1)
    assert both.execute("select stream_table, action from pgtrickle.pgt_refresh_history") \
        == [("public.totals", "DIFFERENTIAL")]


def test_the_history_of_the_table_stays(both):
    for name in "totals", "green", "green":
        refresh(both, name)
    promote(both)
    history = both.execute("select stream_table from pgtrickle.pgt_refresh_history h "
                           "join pgtrickle.pgt_stream_tables s using (pgt_id)")
    assert history == [("public.totals",)] * 2


def test_other_stream_tables_go_on_reading_it(both):
    create(both, "above", "select count(*) as n from totals")
    promote(both)
    settled(both)
    assert both.one("select n from above") == 1


def test_a_new_column_is_added_with_its_values(both):
    both.execute("select pgtrickle.enable_outbox('totals')")
    both.execute("create view shown as select * from totals")
    query = "select region, sum(amount) as revenue, max(created_at) as \"Last Ä\" from orders group by 1"
    create(both, "wider", query)
    done = promote(both, chosen="wider")
    assert done["columns_added"] == ["Last Ä"] and done["updated"] == 2
    (delta,) = deltas(both)
    assert "full_refresh" not in delta
    assert all("Last Ä" in row for row in delta["inserted"])
    assert is_query(both, query)
    both.execute("insert into orders (region, amount) values ('asia', 11)")
    settled(both)
    assert is_query(both, query)
    assert "full_refresh" not in deltas(both)[-1], "the second delta is not a difference"


def test_new_columns_of_a_label_type_and_a_collation(both):
    both.execute("create type mood as enum ('glad', 'sad')")
    both.execute("select pgtrickle.enable_outbox('totals')")
    query = ("select region, sum(amount) as revenue, 'glad'::mood as mood, "
             "max(region) collate \"C\" as c, min(amount)::numeric(12,2) as least, "
             "null::int as nothing from orders group by 1")
    create(both, "wider", query)
    promote(both, chosen="wider")
    assert both.one("select attcollation::regcollation::text from pg_attribute where attname = 'c' "
                    "and attrelid = 'totals'::regclass") == '"C"'
    refresh(both, "totals")
    both.execute("insert into orders (region, amount) values ('asia', 11)")
    refresh(both, "totals")
    assert is_query(both, query)
    assert ["full_refresh" in delta for delta in deltas(both)] == [False, False]


def test_another_key_is_a_full_refresh(both):
    """Consumers pair rows by the key: a difference would leave rows of the former key with them."""
    query = "select region, sum(amount) as revenue, created_at::date as day from orders group by 1, 3"
    both.execute("select pgtrickle.enable_outbox('totals')")
    create(both, "wider", query)
    assert promote(both, chosen="wider")["action"] == "FULL"
    (delta,) = deltas(both)
    assert delta["full_refresh"] and len(delta["inserted"]) == 2
    assert is_query(both, query)
    assert both.one("select key_columns from pgtrickle.relay_outboxes") == ["region", "day"]
    both.execute("insert into orders (region, amount) values ('asia', 11)")
    refresh(both, "totals")
    assert "full_refresh" not in deltas(both)[-1]


def test_with_a_stated_key_and_duplicates_without(both):
    for keys, query in ((["region"], NEW_QUERY), (None, "select region from orders")):
        old = OLD_QUERY if keys else "select region from orders where amount < 60"
        create(both, "blue", old, key=keys)
        create(both, "bluer", query, key=keys)
        promote(both, "blue", "bluer")
        assert is_query(both, query, "blue")
        both.execute("select pgtrickle.drop_stream_table('blue')")


def test_a_suspended_table_is_mended_by_it(both):
    both.execute("select pgtrickle.alter_stream_table('totals', suspend => true)")
    promote(both)
    assert state(both, "totals")["status"] == "ACTIVE" and is_query(both, NEW_QUERY)


def test_no_rows_at_all(both):
    create(both, "none", "select region, sum(amount) as revenue from orders where false group by 1")
    assert promote(both, chosen="none")["deleted"] == 2
    assert both.execute("table totals") == []
    create(both, "again", OLD_QUERY)
    assert promote(both, chosen="again")["inserted"] == 2


def test_twice_in_a_row_and_back(both):
    for query in NEW_QUERY, OLD_QUERY, NEW_QUERY:
        both.execute("select pgtrickle.drop_stream_table('green', true)")
        create(both, "green", query)
        promote(both)
        assert is_query(both, query)


def test_with_all_in_one_transaction(both):
    with both.connect(autocommit=False) as session:
        session.execute("insert into orders (region, amount) values ('asia', 100)")
        session.execute("select pgtrickle.create_stream_table('fresh', %s)", (NEW_QUERY,))
        session.execute("select pgtrickle.promote_stream_table('totals', 'fresh')")
        session.execute("insert into orders (region, amount) values ('africa', 100)")
        session.execute("select pgtrickle.refresh_stream_table('totals')")
        session.commit()
    assert is_query(both, NEW_QUERY)


NAMES = ['"My Totals"', 'app."to.tals"', '"quo""ted"', '"' + "n" * 63 + '"', 'app."Ünïcode 😀"']


@pytest.mark.parametrize("name", NAMES)
def test_names_that_need_quotes(both, name):
    both.execute("create schema app")
    create(both, name, OLD_QUERY)
    create(both, 'app."Gr een"', NEW_QUERY)
    both.execute("select pgtrickle.enable_outbox(%s)", (name,))
    promote(both, name, 'app."Gr een"')
    assert is_query(both, NEW_QUERY, name)


# What waits and what does not --------------------------------------------------------------------

def test_an_older_snapshot_is_refused(both):
    for level in "repeatable read", "serializable":
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), both.connect(autocommit=False) as session:
            session.execute(f"set transaction isolation level {level}")
            session.execute("select pgtrickle.promote_stream_table('totals', 'green')")


def test_a_trigger_of_a_refresh_cannot_promote(both):
    both.execute("""create function again() returns trigger language plpgsql as $$ begin
        perform pgtrickle.promote_stream_table('totals', 'green'); return null; end $$;
        create trigger again after insert on totals for each statement execute function again();
        insert into orders (region, amount) values ('africa', 30)""")
    assert "being refreshed by this very transaction" in refresh(both, "totals")["error"]
    assert both.one("select count(*) from pgtrickle.pgt_stream_tables") == 2


def test_readers_of_the_table_wait_only_where_it_gets_columns(both):
    with both.connect(autocommit=False) as reader:
        reader.execute("select count(*) from totals")
        promote(both)
        reader.execute("select count(*) from totals")
        reader.commit()
        create(both, "wider", NEW_QUERY.replace("sum(amount) as revenue",
                                                "sum(amount) as revenue, count(*) as n"))
        before = catalog(both), catalog(both, "wider")
        reader.execute("select count(*) from totals")
        said = refusal(both, "select pgtrickle.promote_stream_table('totals', 'wider')")
        assert "totals is being used by transactions that do not end" in said
        assert before == (catalog(both), catalog(both, "wider"))
        reader.commit()
    assert promote(both, chosen="wider")["columns_added"] == ["n"]


@pytest.mark.parametrize("statement, rows", [
    ("drop_stream_table('green')", None), ("alter_stream_table('green', '7s')", None),
    ("refresh_stream_table('green')", None), ("refresh_stream_table('totals')", 1),
    ("alter_stream_table('totals', '7s')", 1), ("promote_stream_table('totals', 'green')", None),
    ("promote_stream_table('green', 'totals')", None)])
def test_what_waited_for_a_promotion_looks_its_name_up_again(both, statement, rows):
    """`green` is gone, and what was meant for it does not hit the table that has its query now."""
    outcome = []

    def waiter(session):
        try:
            outcome.append(session.execute(f"select pgtrickle.{statement}").rowcount)
        except psycopg.errors.UndefinedTable:
            outcome.append(None)

    with both.connect(autocommit=False) as first, both.connect() as second:
        first.execute("select pgtrickle.promote_stream_table('totals', 'green')")
        waiting = threading.Thread(target=waiter, args=(second,))
        waiting.start()
        eventually(lambda: both.one("select count(*) from pg_locks where pid = %s and not granted",
                                    (second.info.backend_pid,)), 30)
        first.commit()
        waiting.join(60)
    assert outcome == [rows]
    assert is_query(both, NEW_QUERY)
    assert catalog(both)[2] == ("7s" if rows and "alter" in statement else "5s")


def test_names_swapped_by_renaming_are_not_ambiguous(both):
    """What promotion replaces: the outbox goes on recording the table that was renamed."""
    old = both.one("select pgtrickle.enable_outbox('totals')")
    both.execute("select pgtrickle.alter_stream_table('totals', rename_to => 'blue')")
    both.execute("select pgtrickle.alter_stream_table('green', rename_to => 'totals')")
    new = both.one("select pgtrickle.enable_outbox('totals')")
    meant = "select outbox_table_name from pgtrickle.relay_resolve_outbox(%s)"
    for name in "totals", "public.totals":
        assert both.one(meant, (name,)) == new
    assert both.one(meant, ("blue",)) == old


def test_a_renamed_table_keeps_its_schema(both):
    both.execute("select pgtrickle.alter_stream_table('totals', rename_to => 'public.blue')")
    assert is_query(both, OLD_QUERY, "blue")
    assert "within its schema" in refusal(
        both, "select pgtrickle.alter_stream_table('blue', rename_to => 'app.blue')")
