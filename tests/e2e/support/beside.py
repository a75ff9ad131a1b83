"""A database where the relay is installed beside (a stand-in for) the pg_trickle extension."""

from .database_side import install
from .waiting import eventually

# Everything that the extension owns, as rows of the catalog. `xmin` differs after any change of a
# row, also one that was taken back.
MEMBERS = """
  with members as (
    select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
    where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e')
  select 'function', p.xmin::text, p::text from pg_proc p
  join members m on m.classid = 'pg_proc'::regclass and m.objid = p.oid
  union all
  -- Indexes and sequences go with their tables. What writing and VACUUM change is left out.
  select 'relation', c.xmin::text, concat_ws(' ', c.oid, c.relname, c.relowner, c.relacl, c.reltype,
                                             c.relkind, c.relhasrules, c.relrowsecurity)
  from pg_class c join members m on m.classid = 'pg_class'::regclass and m.objid = c.oid
  union all
  select 'column', a.xmin::text, a::text from pg_attribute a
  join members m on m.classid = 'pg_class'::regclass and m.objid = a.attrelid
  union all
  select 'trigger', t.xmin::text, t::text from pg_trigger t
  join members m on m.classid = 'pg_class'::regclass and m.objid = t.tgrelid
  union all
  select 'membership', d.xmin::text, d::text from pg_depend d
  where d.refclassid = 'pg_extension'::regclass
  union all
  select 'extension', e.xmin::text, e::text from pg_extension e
  union all
  select 'comment', d.xmin::text, d::text from pg_description d
  join members m on m.classid = d.classoid and m.objid = d.objoid
  union all
  select 'schema', '', concat_ws(' ', n.oid, n.nspname, n.nspowner) from pg_namespace n
  join members m on m.classid = 'pg_namespace'::regclass and m.objid = n.oid
  order by 1, 3"""


def members(db):
    """All that extensions own, row by row, and what is in pg_trickle's tables."""
    rows = db.execute(MEMBERS)
    for table in ("pgt_stream_tables", "pgt_refresh_history", "pgt_outbox_config"):
        rows += db.execute(f"select '{table}', xmin::text, t::text from pgtrickle.{table} t")
    return rows


def install_beside(db):
    """pg_trickle 0.46, then the relay."""
    db.execute("create extension pg_trickle version '0.46'")
    install(db.dsn)


def make_totals(db, name="totals", **options):
    """A stream table of the extension over `sales`, with an outbox."""
    db.execute("create table if not exists sales (customer text, amount int)")
    db.execute(f"select pgtrickle.create_stream_table('{name}',"
               " 'select customer, sum(amount)::int as total from sales group by 1')")
    extra = "".join(f", {key} => {value}" for key, value in options.items())
    db.execute(f"select pgtrickle.enable_outbox('{name}', key_columns => '{{customer}}'{extra})")


def sell(db, customer, amount=1):
    db.execute("insert into sales values (%s, %s)", (customer, amount))


def refresh(db, name="totals", full=False):
    """A refresh by the extension."""
    db.execute(f"select pgtrickle.alter_stream_table('{name}', refresh_mode => %s)",
               ("FULL" if full else "DIFFERENTIAL",))
    db.execute(f"select pgtrickle.refresh_stream_table('{name}')")


def modes(db, name="totals"):
    """When each of the outbox's triggers fires, by what it is for."""
    return dict(db.execute(
        "select substring(tgname from '[a-z]+$'), tgenabled from pg_trigger"
        " where tgrelid = %s::regclass and starts_with(tgname, '!pgtrickle_')", (name,)))


RIGHT_MODES = {"begin": "O", "insert": "O", "update": "O", "delete": "O", "row": "R",
               "truncate": "A"}


class NatsCopy:
    """A consumer's copy of a table: applies the deltas of a NATS stream by key, each once."""

    def __init__(self, client, stream="s", key="customer"):
        self.client, self.stream, self.key = client, stream, key
        self.full_refreshes = 0

    def rows(self):
        have, seen = {}, set()
        self.full_refreshes = 0
        for message in self.client.messages(self.stream):
            body = message.json
            if body["metadata"]["id"] in seen:
                continue
            seen.add(body["metadata"]["id"])
            if body["metadata"].get("full_refresh") and body["metadata"].get("part", 1) == 1:
                have.clear()
                self.full_refreshes += 1
            for row in body["delta"]["deleted"]:
                have.pop(row[self.key], None)
            for row in body["delta"]["inserted"]:
                have[row[self.key]] = row
        return have

    def wait_equal(self, db, table="totals", deadline=30):
        """Waits until the copy is what the table is at this moment."""
        wanted = {row[self.key]: row for row, in
                  db.execute(f"select to_jsonb(x.*) from {table} x")}
        eventually(lambda: self.rows() == wanted, deadline, interval=0.05,
                   message=lambda: f"the copy is {self.rows()}, the table {wanted}")
        return wanted
