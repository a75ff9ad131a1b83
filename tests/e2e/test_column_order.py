"""Columns come in the order of the table, or of the stream table's query, whatever jsonb makes of it."""

from support.bridges import set_bridge
from support.pipelines import Lines, set_outbox, to_file
from support.stream_tables import refresh
from support.waiting import eventually

ODD = ["region of the order", "a", 'b "quoted" \\', "zz", "ü", "c,d: e", "{x}"]


def columns(values):
    return ", ".join(f"""{value} as "{name.replace('"', '""')}" """ for name, value in zip(ODD, values))


def test_rows_have_their_columns_in_the_order_of_the_query(db, relay, tmp_path):
    """In each format, inline and as a claim check, with values that look like names."""
    db.execute("create table t (id int primary key, note text, doc jsonb)")
    query = f"""select {columns(["note", "id", "doc", "id * 1.50", "note || ']}'", "null::int", "now()"])}
                from t"""
    for name, options in (("s", ""), ("claims", ", inline_threshold_rows => 1")):
        db.execute("select pgtrickle.create_stream_table(%s, %s, 'manual', key_columns => '{a}')",
                   (name, query))
        db.execute(f"select pgtrickle.enable_outbox('{name}'{options})")
    db.execute("select pgtrickle.enable_outbox('t')")
    formats = {"delta": {}, "row": {"message": "row"}, "debezium": {"wire_format": "debezium"},
               "cloudevents": {"wire_format": "cloudevents"}, "some": {"columns": ["zz", "region of the order"]}}
    lines = {}
    for table in ("s", "claims"):
        for name, options in formats.items():
            lines[table, name] = Lines(tmp_path / f"{table}-{name}")
            set_outbox(db, f"{table}-{name}", to_file(table, lines[table, name].path,
                                                      **{"message": "delta", **options}
                                                      if name != "debezium" else
                                                      {"message": "row", **options}))
    lines["t", "row"] = Lines(tmp_path / "t-row")
    set_outbox(db, "t-row", to_file("t", lines["t", "row"].path, message="row"))
    with relay:
        db.execute("insert into t select i, '\"a\": {' || i, '{\"zz\": [1, {\"a\": \"}\"}]}' "
                   "from generate_series(1, 3) i")
        refresh(db, "s")
        refresh(db, "claims")
        eventually(lambda: all(file.messages() for file in lines.values()), 30)
        eventually(lambda: len(lines["t", "row"].messages()) == 3, 30)
        # A column that is added while the pipeline runs is the last one; what it does not know is too.
        db.execute("alter table t add column d int default 1; update t set note = 'y' where id = 1")
        eventually(lambda: "d" in (lines["t", "row"].messages()[-1]["new"] or {}), 30)
    for table in ("s", "claims"):
        got = {name: lines[table, name].messages()[0] for name in formats}
        rows = [*got["delta"]["delta"]["inserted"], got["row"]["new"], got["debezium"]["after"],
                *got["cloudevents"]["data"]["delta"]["inserted"]]
        assert len(rows) == 8
        for row in rows:
            assert list(row) == ODD, (table, row)
        first = got["delta"]["delta"]["inserted"][0]
        assert list(first.values())[:6] == ['"a": {1', 1, {"zz": [1, {"a": "}"}]}, 1.5, '"a": {1]}', None]
        assert [list(row) for row in got["some"]["delta"]["inserted"]] == [
            ["region of the order", "a", "zz"]] * 3
    assert [list(m["new"]) for m in lines["t", "row"].messages()[:3]] == [["id", "note", "doc"]] * 3
    assert list(lines["t", "row"].messages()[-1]["new"]) == ["id", "note", "doc", "d"]


def test_whole_rows_of_a_table_that_is_read_have_their_columns_in_its_order(db, relay, tmp_path):
    db.execute("create table letters (id bigint generated always as identity primary key, "
               "subject text, body jsonb, a int); grant select on letters to public")
    lines = Lines(tmp_path / "out")
    set_bridge(db, "p", {"type": "pg-outbox", "url": db.dsn, "table": "public.letters"}, lines.path)
    with relay:
        db.execute("""insert into letters (subject, body, a) values ('s', '{"id": 1}', 2)""")
        eventually(lambda: lines.messages(), 20)
    assert list(lines.messages()[0]["payload"].items()) == [
        ("id", 1), ("subject", "s"), ("body", {"id": 1}), ("a", 2)]
