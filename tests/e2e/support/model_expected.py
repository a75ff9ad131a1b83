"""What the rows of a table are in JSON, by docs/outboxes.md ("How values are written")."""

# to_jsonb() of each value by itself: what it refuses is to be null and named.
HELPERS = """
create or replace function pg_temp.tried(anyelement) returns jsonb language plpgsql as $$
begin
  return jsonb_build_object('v', to_jsonb($1));
exception when others then
  return null;
end $$;
"""


def quoted_name(name):
    return '"' + name.replace('"', '""') + '"'


def expected_rows(side, rel, number):
    """[(row as JSON text, key as JSON text or None)]"""
    columns = side.rows(
        """select a.attname, a.atttypid::bigint, a.attgenerated::text = 'v'
           from pg_attribute a where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
           order by a.attnum""", rel)
    # Virtual generated columns are not recorded.
    virtual = [name for name, _, is_virtual in columns if is_virtual]
    columns = [column[:2] for column in columns if not column[2]]
    kind, name = side.rows("select relkind, oid::regclass::text from pg_class where oid = %s",
                           rel)[0]
    only = "only" if kind == b"r" or kind == "r" else ""
    if any(_may_be_omitted(side, oid) for _, oid in columns):
        side.checker.execute(HELPERS)
        row = _careful(columns)
    else:
        row = "to_jsonb(x.*)" + "".join(" - '" + name.replace("'", "''") + "'" for name in virtual)
    return side.rows(
        f"""select r.j::text, (select jsonb_agg(coalesce(r.j -> k, '"?"') order by n)
                               from unnest(c.key_columns) with ordinality u (k, n))::text
            from (select {row} as j from {only} {name} x) r,
                 pgtrickle.pgt_outbox_config c where c.outbox_number = {number}""")


def _may_be_omitted(side, oid):
    """Whether a type holds json."""
    return side.rows(
        """with recursive t (oid) as (
             values (%s::bigint::oid)
             union
             select p.o from t join pg_type y on y.oid = t.oid
             cross join lateral (
               select y.typbasetype union all select y.typelem
               union all select a.atttypid from pg_attribute a
               where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped) p (o)
             where p.o <> 0)
           select exists (select from t where oid = 'json'::regtype)""", oid)[0][0]


def _careful(columns):
    values = ", ".join(
        f"(%s, pg_temp.tried(x.{quoted_name(name)}), num_nulls(x.{quoted_name(name)}) = 1)"
        % ("'" + name.replace("'", "''") + "'") for name, _ in columns)
    return f"""(select jsonb_object_agg(k, case when absent then null else v -> 'v' end)
                       || case when bool_or(v is null and not absent)
                               then jsonb_build_object('__pgtrickle_omitted',
                                      jsonb_agg(k order by n) filter (where v is null and not absent))
                               else '{{}}' end
                from (select row_number() over () as n, q.*
                      from (values {values}) q (k, v, absent)) q)"""
