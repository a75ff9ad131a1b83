"""What the database cannot check of a configuration: the running relay refuses it at once, and `check` names it.
Pipelines are written through the views that carry the names of earlier catalogs, too."""

import json

import pytest
from psycopg.types.json import Jsonb
from support.pipelines import SLOW_FACTOR, insert_rows, make_table, set_outbox, status_row, to_file
from support.relay import run_command
from support.waiting import eventually, holds_for

# What is wrong, and what is said of it.
LATE = [
    ({"filter": "amount >"}, "filter"),
    ({"filter": "amount > 1 and"}, "filter"),
    ({"subject_template": "x.{nonsense}"}, "nonsense"),
    ({"subject_template": "x.{op"}, "subject_template"),
    ({"key_template": "{{ }}"}, "key_template"),
    ({"headers": {"a": "{nonsense}"}}, "nonsense"),
    ({"retry": {"min": "10s", "max": "1s"}}, "retry_min"),
    ({"sink": {"type": "nats", "url": "http://h"}}, "scheme 'http'"),
    ({"batch_size": "${env:NO_SUCH_VARIABLE}"}, "NO_SUCH_VARIABLE"),
]


@pytest.mark.parametrize("wrong, named", LATE, ids=[json.dumps(wrong) for wrong, _ in LATE])
def test_the_running_relay_refuses_it_when_it_is_told(db, start_relay, tmp_path, wrong, named):
    """Not when it next looks at the catalog: that would be in a minute here."""
    make_table(db)
    path = tmp_path / "out.jsonl"
    with start_relay(db.relay_dsn, discovery_interval="60s") as relay:
        relay.wait_up()
        set_outbox(db, "good", to_file("orders", path))
        set_outbox(db, "late", to_file("orders", tmp_path / "late.jsonl", **wrong))

        def refused():
            row = status_row(db, "late")
            return row and row["state"] == "misconfigured" and named in row["last_error"] and row["remedy"]
        eventually(refused, 30 * SLOW_FACTOR, message=lambda: (status_row(db, "late"), relay.log(30)))
        done = run_command("check", "--json", "--postgres-url", db.relay_dsn)
        said = [each for each in json.loads(done.stdout)["findings"]
                if each.get("pipeline") == "late" and not each["ok"]]
        assert done.returncode != 0 and any(named in each["message"] for each in said), done.stdout
        # Its neighbour works, and so does the pipeline once it is corrected.
        set_outbox(db, "late", to_file("orders", tmp_path / "late.jsonl"))
        insert_rows(db, "orders", 1)
        for file in (path, tmp_path / "late.jsonl"):
            eventually(lambda: file.exists() and file.read_text().count("\n") == 1, 30 * SLOW_FACTOR,
                       message=lambda: relay.log(30))


@pytest.mark.parametrize("group", [{"group": "shared"}, {"source": {"group": "shared"}}],
                         ids=["flat", "nested"])
def test_the_position_is_kept_under_the_group_of_the_pipeline(db, start_relay, tmp_path, group):
    make_table(db)
    insert_rows(db, "orders", 1)
    set_outbox(db, "p", to_file("orders", tmp_path / "out.jsonl", **group))
    with start_relay(db.relay_dsn, relay_group_id="other") as relay:
        eventually(lambda: db.execute(
            "select relay_group_id from pgtrickle.relay_consumer_offsets where pipeline_id = 'p'"
            " and last_change_id = 1") == [("shared",)], 30 * SLOW_FACTOR, message=lambda: relay.log(30))
        assert [row for row, in db.execute("select position from pgtrickle.relay_pipelines_now()")] == [1]


def test_an_error_with_bytes_that_no_text_of_the_database_holds_hides_no_status(db, start_relay, tmp_path):
    make_table(db)
    insert_rows(db, "orders", 1)
    config = tmp_path / "relay.toml"
    config.write_text("\n".join(f"""[[pipeline]]
name = "{name}"
source = {{type = "outbox", stream_table = "orders"}}
sink = {{type = "file", path = "{tmp_path / name}"}}
key_template = "{template}"
""" for name, template in (("good", "x"), ("nul", "{\\u0000}"))))
    with start_relay(db.relay_dsn, config=config) as relay:
        eventually(lambda: (status_row(db, "good") or {}).get("state") in ("running", "idle"), 30 * SLOW_FACTOR,
                   message=lambda: relay.log(30))
        assert "unknown variable {?}" in eventually(
            lambda: (status_row(db, "nul") or {}).get("last_error"))


VIEWS = {
    "relay_outbox_config": ("forward", {"stream_table": "orders", "sink_type": "stdout"}),
    "relay_inbox_config": ("reverse", {"source_type": "stdin", "inbox_name": "letters"}),
    "relay_bridge_config": ("bridge", {"source_type": "stdin", "sink_type": "stdout"}),
}


@pytest.mark.parametrize("view", VIEWS)
def test_each_direction_is_an_updatable_view_of_one_table(db, view):
    make_table(db)
    direction, config = VIEWS[view]
    db.execute(f"insert into pgtrickle.{view} (name, enabled, config) values ('p', false, %s)",
               (Jsonb(config),))
    assert db.execute("select name, direction, enabled, config from pgtrickle.relay_config") == [
        ("p", direction, False, config)]
    assert db.execute("select * from pgtrickle.list_relay_configs()") == [("p", direction, False, config)]
    for other in VIEWS:
        assert db.one(f"select count(*) from pgtrickle.{other}") == (other == view)
    db.execute(f"update pgtrickle.{view} set enabled = true, config = config || '{{\"batch_size\": 7}}'")
    assert db.execute("select enabled, config from pgtrickle.relay_config") == [
        (True, {**config, "batch_size": 7})]
    db.execute(f"delete from pgtrickle.{view}")
    assert db.execute("select from pgtrickle.relay_config") == []


def test_what_was_written_past_the_checks_is_refused_by_the_relay_and_no_other_pipeline_suffers(
        db, start_relay, tmp_path):
    make_table(db)
    path = tmp_path / "out.jsonl"
    wrong = [[], "x", 5, {}, {"sink_type": "nats"}, {"stream_table": "orders", "sink_type": "stdout", "batch_size": {}},
             {"source": [1], "sink": {"type": "stdout"}}, {"é" * 5000: 1}, {"a" * 63 + "é": {"b": [[[]]]}},
             {"stream_table": "orders", "sink_type": "stdout", "headers": {"a": [None]}}]
    for number, config in enumerate(wrong):
        db.execute("insert into pgtrickle.relay_bridge_config (name, enabled, config) values (%s, true, %s)",
                   (f"wrong {number}", Jsonb(config)))
    set_outbox(db, "good", to_file("orders", path))
    with start_relay(db.relay_dsn) as relay:
        insert_rows(db, "orders", 1)
        eventually(lambda: path.exists() and path.read_text().count("\n") == 1, 30 * SLOW_FACTOR,
                   message=lambda: relay.log(30))
        for number in range(len(wrong)):
            eventually(lambda: (status_row(db, f"wrong {number}") or {}).get("state") == "misconfigured",
                       30 * SLOW_FACTOR, message=lambda: relay.log(30))
        holds_for(lambda: relay.pipeline("good")["state"] in ("running", "idle"), 0.3)
