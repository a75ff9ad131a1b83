"""A consumer that applies the rows of an outbox to a copy of the table."""

import collections

import pytest


class Replay:
    """Applies an outbox as a consumer would: strictly, a deleted row must have been there."""

    def __init__(self, db, table):
        self.db = db
        self.table = table
        self.outbox = self.config("outbox_table_name")
        self.delta = self.config("delta_table_name")

    def config(self, column):
        return self.db.one(
            f"select {column} from pgtrickle.relay_outboxes "
            "where stream_table_oid = %s::regclass", (self.table,))

    def entries(self):
        """(id, tg_op, inserted_count, deleted_count, is_claim_check, payload) by id."""
        return self.db.execute(
            f'select id, tg_op, inserted_count, deleted_count, is_claim_check, payload '
            f'from pgtrickle."{self.outbox}" order by id')

    def ops(self):
        return [row[1] for row in self.entries()]

    def _changes(self, id, claim_check):
        if claim_check:
            rows = self.db.execute(
                f'select row_num, row_op, row_data::text from pgtrickle."{self.delta}" '
                "where outbox_id = %s order by row_num", (id,))
            assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
            return [row[1:] for row in rows]
        return self.db.execute(
            f"""select op, r::text from pgtrickle."{self.outbox}" o,
                lateral (select 1, 'DELETE', * from jsonb_array_elements(payload -> 'deleted')
                         union all
                         select 2, 'INSERT', * from jsonb_array_elements(payload -> 'inserted'))
                  c (phase, op, r)
                where o.id = %s order by phase""", (id,))

    def rows(self, strict=True):
        have = collections.Counter()
        entries = self.entries()
        if not strict:
            last = max(n for n, row in enumerate(entries) if row[5].get("full_refresh"))
            entries = entries[last:]
        for id, _, inserted, deleted, claim_check, payload in entries:
            assert payload["v"] == 1
            if payload.get("full_refresh"):
                have.clear()
            changes = self._changes(id, claim_check)
            assert sum(op == "INSERT" for op, _ in changes) == inserted
            assert sum(op == "DELETE" for op, _ in changes) == deleted
            for op, row in changes:
                if op == "DELETE":
                    assert have[row] > 0, f"outbox row {id} deletes what is not there: {row}"
                    have[row] -= 1
                else:
                    have[row] += 1
        return +have

    def check(self, strict=True):
        """strict=False: only from the last full refresh on, as a consumer that begins there."""
        rows = self.db.execute(f"select to_jsonb(x.*)::text from {self.table} x")
        assert self.rows(strict) == collections.Counter(row[0] for row in rows)


@pytest.fixture
def orders(db):
    """A table with an outbox, empty."""
    db.execute("create table orders (id int primary key, region text, amount numeric)")
    db.execute("select pgtrickle.enable_outbox('orders')")
    return Replay(db, "orders")


@pytest.fixture
def events(db):
    """A partitioned table, a part partitioned again, one with other columns; and its outbox."""
    db.execute("""
        create table events (id int, part int, body text, primary key (id, part))
          partition by range (part);
        create table events_1 partition of events for values from (0) to (10);
        create table events_2 (body text, dropped int, part int not null, id int not null);
        alter table events_2 drop column dropped;
        alter table events attach partition events_2 for values from (10) to (20);
        create table events_3 partition of events for values from (20) to (40)
          partition by range (part);
        create table events_3a partition of events_3 for values from (20) to (30);
        create table events_3b partition of events_3 for values from (30) to (40)""")
    db.execute("select pgtrickle.enable_outbox('events', capture => 'statement')")
    return Replay(db, "events")
