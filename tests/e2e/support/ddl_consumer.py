"""A consumer of a captured table whose definition changes."""


class Consumer:
    """Applies an outbox by key, replacing everything at a full refresh."""

    def __init__(self, db, outbox="outbox_t", key="id"):
        self.db, self.outbox, self.key = db, outbox, key

    def config(self, column):
        return self.db.one(f"select {column} from pgtrickle.relay_outboxes "
                           "where outbox_table_name = %s", (self.outbox,))

    @property
    def problem(self):
        return self.config("problem")

    def reasons(self):
        """Why each full refresh was written by upkeep, in order."""
        return [reason for reason, in self.db.execute(
            f"select payload ->> 'reason' from pgtrickle.{self.outbox} "
            "where payload -> 'full_refresh' = 'true' and tg_op is null order by id")]

    def rows(self):
        have = {}
        for id, in self.db.execute(
                f"select id from pgtrickle.{self.outbox} where id >= (select coalesce(max(id), 0) "
                f"from pgtrickle.{self.outbox} where payload -> 'full_refresh' = 'true') "
                "order by id"):
            changes = self.db.execute(
                "select row_op, row_data from pgtrickle.outbox_rows(%s, %s) order by row_num",
                (self.outbox, id))
            inserted = {row[self.key]: row for op, row in changes if op == "INSERT"}
            for op, row in changes:
                if op == "DELETE" and row[self.key] not in inserted:
                    have.pop(row[self.key], None)
            have.update(inserted)
        return have

    def check(self, table, key=None):
        self.key = key or self.key
        wanted = {row[self.key]: row for row, in
                  self.db.execute(f"select to_jsonb(x.*) from {table} x")}
        assert self.rows() == wanted
        return wanted


def upkeep(db):
    """One pass of housekeeping, by the role that the daemon has."""
    with db.connect(user="relay_daemon") as relay:
        report, = relay.execute("select pgtrickle.relay_housekeeping()").fetchone()
    assert report["errors"] == []
    return report["upkeep"]
