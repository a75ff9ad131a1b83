"""Change feeds: how a reader follows one with the plain statement of the documentation."""

from collections import Counter

from .indexes import Follower
from .pipelines import SLOW_FACTOR
from .waiting import eventually


def make_feed(db, table, **options):
    named = "".join(f", {key} => %({key})s" for key in options)
    return db.one(f"select pgtrickle.create_change_feed(%(table)s{named})", {"table": table, **options})


def rows(db, feed, columns="action, pk, row_data, old_data", after=0):
    return db.execute(f"select {columns} from {feed} where change_id > %s order by change_id", (after,))


def wait_rows(db, feed, count, deadline=30, **how):
    """The rows of a feed, once there are as many."""
    return eventually(lambda: len(found := rows(db, feed, **how)) >= count and found,
                      deadline * SLOW_FACTOR, message=lambda: rows(db, feed, **how))


def wait_written(db, table, deadline=60):
    """Waits until the feed of a table holds all that its outbox has now."""
    outbox = db.one("select outbox from pgtrickle.change_feeds where table_name = %s", (table,))
    last = db.one(f'select coalesce(max(id), 0) from pgtrickle."{outbox}"')
    eventually(lambda: db.one("select position >= %s from pgtrickle.consumers where kind = 'feed' "
                              "and outbox = %s", (last, outbox)), deadline * SLOW_FACTOR)


class Cursor:
    """The naive reader: the statement of the documentation with a LIMIT, and nothing else."""

    def __init__(self, feed, limit=7):
        self._statement = (f"select change_id, action, pk, row_data, old_data, outbox_id, row_num "
                           f"from {feed} where change_id > %s order by change_id limit {limit}")
        self.last = 0

    def read(self, connection):
        found = connection.execute(self._statement, (self.last,)).fetchall()
        if found:
            self.last = found[-1][0]
        return found


class FeedFollower(Follower):
    """By a feed with full_refresh_rows: the row F clears the index, and says how many rows follow."""

    def __init__(self, db, feed, limit=7):
        super().__init__(db)
        self.cursor, self.actions = Cursor(feed, limit), Counter()

    def take(self, connection):
        for _, action, pk, row, *_ in self.cursor.read(connection):
            self.actions[action] += 1
            if action == "F":
                self.index.clear()
            else:
                self.index.apply(action, pk, row)
