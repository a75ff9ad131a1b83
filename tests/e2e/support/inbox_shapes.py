"""Tables that an application may adopt as an inbox, each with what it does to a message.

A trigger, a policy or a constraint that refuses does so for messages whose type ends in `poison`.
"""

import dataclasses

COLUMNS = {
    "event_id": "text primary key", "event_type": "text", "source": "text",
    "aggregate_id": "text", "payload": "jsonb", "headers": "jsonb",
    "received_at": "timestamptz default clock_timestamp()", "processed_at": "timestamptz",
    "error": "text", "retry_count": "int not null default 0", "trace_id": "text"}

POISON = "new.event_type like '%poison'"


@dataclasses.dataclass(frozen=True)
class Shape:
    """`refusable`: the pipeline may refuse the table and say so; then it acknowledges nothing.
    `strict`: each message of which the model knows no reason to refuse it must become a row.
    `before`: a BEFORE trigger, so that what is stored cannot be compared with what arrived.
    `may_wait`: a pipeline may go on trying for as long as it has nothing but messages of the type
    `poison`: they may be refused for the table's sake, or for a moment's."""
    name: str
    statements: tuple
    ids: str = "text"
    strict: bool = True
    refusable: bool = False
    before: bool = False
    may_wait: bool = False
    slow: bool = False      # each message that it refuses is tried for some seconds
    unwrap: object = None   # the stored payload -> the payload as it was before a trigger
    same_type: bool = True  # the stored type is the published one
    created: bool = False   # made by create_inbox
    cleanup: tuple = ()     # what heal does beside undoing alterations


def table(over=None, more="", after=""):
    columns = {**COLUMNS, **(over or {})}
    inner = ", ".join(f"{name} {kind}" for name, kind in columns.items() if kind)
    return f"create table {{t}} ({inner}{', ' + more if more else ''}) {after}"


def trigger(when, timing, body, constraint=""):
    return (f"create function {{t}}_f() returns trigger language plpgsql as $$ begin "
            f"if {when} then {body} end if; return new; end $$",
            f"create {constraint} trigger t {timing} insert on {{t}} {{deferred}} for each row "
            "execute function {t}_f()")


def _plain(name, over=None, more="", after="", extra=(), **options):
    return Shape(name, (table(over, more, after), *extra), **options)


def _id(name, kind, **options):
    return _plain(f"id_{name}", {"event_id": f"{kind} primary key"},
                  **{"strict": False, "refusable": True, **options})


def _triggered(name, when, timing, body, over=None, extra=(), deferred="", **options):
    made = tuple(s.replace("{deferred}", deferred) for s in trigger(
        when, timing, body, "constraint" if deferred else ""))
    return Shape(name, (table(over), *extra, *made), **options)


RAISED = ("P0001", "U0001", "40001", "55000", "42501", "23505", "23514", "22023", "0A000", "42P01",
          "42883", "P0002", "P0004", "HV000", "39000", "2F003", "21000", "34000", "44000", "Z9999")
RAISED_AS_TROUBLE = ("08006", "53100", "53200", "55P03", "57014", "57P01", "58030", "XX000",
                     "40P01", "25006", "0B000")


def _raise(codes):
    array = ",".join(f"'{code}'" for code in codes)
    return ("raise exception 'not this one' using errcode = (array[" + array + "])"
            f"[1 + abs(hashtext(new.event_id::text)) % {len(codes)}];")


def _unwrap(text):
    """The trigger `changes` stores {"was": ...}."""
    assert text.startswith('{"was": ') and text.endswith("}"), text[:80]
    return text[8:-1]


SHAPES = [
    # Made by us.
    Shape("created", (), created=True),
    # Payloads.
    _plain("plain"),
    _plain("payload_json", {"payload": "json"}),
    _plain("payload_text", {"payload": "text"}),
    _plain("payload_bytea", {"payload": "bytea"}),
    _plain("payload_not_null", {"payload": "jsonb not null"}),
    _plain("payload_short", {"payload": "varchar(60)"}, strict=False, refusable=True),
    _plain("payload_char", {"payload": "char(80)"}, strict=False, refusable=True),
    _plain("payload_domain", {"payload": "{t}_d"}, strict=False, refusable=True),
    _plain("few_columns", {name: None for name in (
        "event_type", "source", "aggregate_id", "headers", "trace_id")}),
    # Ids.
    _id("varchar", "varchar(200)", strict=True, refusable=False),
    _id("varchar_12", "varchar(12)"), _id("char_8", "char(8)"), _id("name", "name"),
    _id("numeric", "numeric(6,0)", ids="number"),
    _id("numeric_scale", "numeric(6,2)", ids="number"),
    _id("int", "int", ids="number"), _id("smallint", "smallint", ids="number"),
    _id("real", "real", ids="number"), _id("uuid", "uuid", ids="uuid"),
    _id("citext", "public.citext"), _id("domain", "{t}_d"), _id("bytea", "bytea"),
    _id("nocase", 'text collate public.nocase'), _id("one_char", '"char"'),
    _id("timestamp", "timestamptz(0)", ids="time"), _id("bit", "bit(4)", ids="number"),
    # Other columns.
    _plain("type_short", {"event_type": "varchar(4)"}, strict=False, refusable=True),
    _plain("type_name", {"event_type": "name"}, strict=False, refusable=True),
    _plain("key_short", {"aggregate_id": "varchar(3)"}, strict=False, refusable=True),
    _plain("key_number", {"aggregate_id": "numeric(3,0)"}, strict=False, refusable=True),
    _plain("key_not_null", {"aggregate_id": "text not null"}, strict=False, refusable=True),
    _plain("source_short", {"source": "varchar(2)"}, strict=False, refusable=True),
    _plain("headers_text", {"headers": "varchar(20)"}, strict=False, refusable=True),
    _plain("not_null_default", {"region": "text not null default 'eu'"}),
    _plain("not_null_without", {"region": "text not null"}, strict=False, refusable=True),
    _plain("generated", {"size": "int generated always as (length(payload::text)) stored"}),
    _plain("generated_raises",
           {"number": "int generated always as ((payload ->> 'n')::int) stored"}, strict=False),
    _plain("generated_type", {"event_type": "text generated always as ('x') stored"},
           strict=False, refusable=True, same_type=False),
    _plain("generated_id", {"event_id": "text generated always as ('x') stored primary key"},
           strict=False, refusable=True),
    _plain("identity", {"nr": "bigint generated always as identity"}),
    # Keys.
    _plain("unique_only", {"event_id": "text unique"}),
    _plain("deferrable", {"event_id": "text primary key deferrable"}, strict=False,
           refusable=True),
    _plain("partial_key", {"event_id": "text"}, strict=False, refusable=True,
           extra=("create unique index on {t} (event_id) where processed_at is null",)),
    _plain("no_key", {"event_id": "text"}, strict=False, refusable=True),
    _plain("wide_key", {"event_id": "text"}, "primary key (event_id, source)", strict=False,
           refusable=True),
    _plain("two_keys", more="unique (aggregate_id)", strict=False),
    _plain("lower_key", extra=("create unique index on {t} (lower(event_id))",), strict=False),
    _plain("exclusion", more="exclude using hash (md5(payload::text) with =)", strict=False),
    _plain("exclusion_deferred", strict=False,
           more="exclude using hash (event_type with =) where (event_type like '%poison') "
                "deferrable initially deferred"),
    _plain("foreign_key", {"event_type": "text references {t}_types"}, strict=False),
    _plain("foreign_key_deferred",
           {"event_type": "text references {t}_types deferrable initially deferred"},
           strict=False),
    # Partitions and children.
    _plain("hash", after="partition by hash (event_id)", extra=tuple(
        f"create table {{t}}_{n} partition of {{t}} for values with (modulus 4, remainder {n})"
        for n in range(4))),
    _plain("range", after="partition by range (event_id)", strict=False, extra=(
        "create table {t}_1 partition of {t} for values from (minvalue) to ('p')",
        "create table {t}_2 partition of {t} for values from ('p') to ('z')")),
    _plain("list", {"event_id": "text"}, "primary key (event_id, event_type)",
           "partition by list (event_type)", strict=False, refusable=True,
           extra=("create table {t}_1 partition of {t} default",)),
    _plain("levels", after="partition by hash (event_id)", extra=(
        "create table {t}_0 partition of {t} for values with (modulus 2, remainder 0)",
        "create table {t}_1 partition of {t} for values with (modulus 2, remainder 1) "
        "partition by range (event_id)",
        "create table {t}_2 partition of {t}_1 for values from (minvalue) to ('p')",
        "create table {t}_3 partition of {t}_1 default")),
    _plain("hash_poison", after="partition by hash (event_id)", strict=False, extra=tuple(
        f"create table {{t}}_{n} partition of {{t}} for values with (modulus 2, remainder {n})"
        for n in range(2)) + ("alter table {t}_1 add check (event_type not like '%poison')",)),
    _plain("inherited", extra=(
        "create table {t}_1 () inherits ({t})", "create table {t}_2 () inherits ({t})",
        "insert into {t}_1 (event_id, payload) select 'child-' || i, '\"child\"' "
        "from generate_series(1, 20) i")),
    _plain("view", extra=(
        "alter table {t} rename to {n}_rows",
        "create view {t} as select * from {t}_rows where event_type not like '%poison' "
        "with check option"), strict=False, refusable=True),
    Shape("unlogged", (table().replace("create table", "create unlogged table"),),
          strict=False, refusable=True),
    # Triggers.
    _triggered("raises", POISON, "before", _raise(RAISED), before=True),
    _triggered("raises_after", POISON, "after", _raise(RAISED)),
    _triggered("raises_trouble", POISON, "before", _raise(RAISED_AS_TROUBLE), before=True,
               may_wait=True, slow=True),
    _triggered("raises_at_commit", POISON, "after", _raise(RAISED),
               deferred="deferrable initially deferred"),
    _triggered("returns_null", POISON, "before", "return null;", before=True),
    _triggered("moves", POISON, "before",
               "insert into {t}_1 select new.*; return null;", before=True,
               extra=("create table {t}_1 (unique (event_id)) inherits ({t})",
                      "grant insert on {t}_1 to pgtrickle_relay")),
    _triggered("changes", "true", "before",
               "new.payload := jsonb_build_object('was', new.payload);", before=True,
               unwrap=_unwrap),
    _triggered("changes_type", "true", "before", "new.event_type := 'x';", before=True,
               same_type=False),
    _triggered("changes_id", "true", "before", "new.event_id := 'x-' || new.event_id;",
               before=True),
    _triggered("cuts_id", "true", "before", "new.event_id := left(new.event_id, 4);",
               before=True, strict=False),
    _triggered("writes_elsewhere", "true", "after",
               "insert into {t}_log values (new.event_id, new.payload);",
               extra=("create table {t}_log (id text, payload jsonb)",
                      "grant insert on {t}_log to pgtrickle_relay")),
    _triggered("writes_elsewhere_first", POISON, "before",
               "insert into {t}_log values (new.event_id, new.payload); "
               "raise exception 'not this one' using errcode = 'U0001';", before=True,
               extra=("create table {t}_log (id text, payload jsonb)",
                      "grant insert on {t}_log to pgtrickle_relay")),
    _triggered("may_not_write_elsewhere", POISON, "before",
               "insert into {t}_log values (new.event_id, new.payload);", before=True,
               extra=("create table {t}_log (id text, payload jsonb)",), may_wait=True),
    _triggered("divides", POISON, "before", "perform 1 / 0;", before=True),
    # Rights, rules.
    Shape("row_security", (table(), "alter table {t} enable row level security",
                           "create policy r on {t} for select using (true)",
                           "create policy w on {t} for insert "
                           "with check (event_type not like '%poison')"), may_wait=True),
    Shape("hidden_rows", (table(), "alter table {t} enable row level security",
                          "create policy r on {t} for select "
                          "using (event_type not like '%poison')",
                          "create policy w on {t} for insert with check (true)"), strict=False,
          may_wait=True),
    Shape("no_policy", (table(), "alter table {t} enable row level security"), strict=False,
          refusable=True),
    Shape("rule_also", (table(), "create table {t}_log (id text)",
                        "create rule r as on insert to {t} do also "
                        "insert into {t}_log values (new.event_id)"), strict=False,
          refusable=True),
    Shape("rule_nothing", (table(), "create rule r as on insert to {t} where "
                           + POISON + " do instead nothing"), strict=False, refusable=True),
    Shape("statement_trigger",
          (table(), "create function {t}_f() returns trigger language plpgsql as $$ begin "
           "if (select count(*) from n where event_type like '%poison') > 0 then raise exception "
           "'not these' using errcode = 'U0001'; end if; return null; end $$",
           "create trigger t after insert on {t} referencing new table as n for each statement "
           "execute function {t}_f()")),
    Shape("check_not_null", (table({"event_type": "text check (event_type not like '%poison')"}),)),
]
DOMAINS = {
    "payload_domain": "create domain {t}_d as jsonb check (jsonb_typeof(value) = 'object')",
    "id_domain": "create domain {t}_d as varchar(30) check (value !~ 'x')",
}
TYPES = ("foreign_key", "foreign_key_deferred")


def make(db, shape, name):
    """Makes the table `app.<name>` and an inbox of that name over it."""
    if shape.created:
        db.execute("select pgtrickle.create_inbox(%s)", (name,))
        return f"pgtrickle.inbox_{name}"
    place = f"app.{name}"
    if shape.name in DOMAINS:
        db.execute(DOMAINS[shape.name].replace("{t}", place))
    if shape.name in TYPES:
        db.execute(f"create table {place}_types (name text primary key)")
        db.execute(f"insert into {place}_types values ('ok')")
    for statement in shape.statements:
        db.execute(statement.replace("{t}", place).replace("{n}", name))
    db.execute(f"grant select, insert on {place} to pgtrickle_relay")
    return place
