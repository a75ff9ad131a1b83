"""`apply` makes the pipelines of a database equal to a file, `export` writes such a file."""

import json
import random
import subprocess

import pytest

from support.fixtures import fresh_database
from support.pipelines import LONG, make_table, set_outbox, to_file
from support.relay import clean_environment, relay_binary, run_command
from support.waiting import eventually

OK, FAILED, USAGE, INVALID = 0, 1, 2, 3

pytestmark = pytest.mark.usefixtures("relay_bin")

TWO = """
[[pipeline]]
name = "one"
stream_table = "orders"
sink = { type = "memory" }

[[pipeline]]
name = "two"
enabled = false
source = { type = "outbox", stream_table = "orders" }
batch_size = 10
[pipeline.sink]
type = "webhook"
url = "https://example.com/hook"
"""


@pytest.fixture
def other_db(pg_server):
    yield from fresh_database(pg_server)


def admin(db):
    """May configure pipelines, and has no other right."""
    return db.login("relay_operator", "pgtrickle_admin")


def apply(db, text, *flags, dsn=None, code=OK, **options):
    done = run_command("apply", "-f", "-", *flags, "--postgres-url", dsn or admin(db), stdin=text,
                       **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == OK else done.stderr


def export(db, *arguments, code=OK):
    done = run_command("export", *arguments, "--postgres-url", admin(db))
    assert done.returncode == code, done.stdout + done.stderr
    return done


def catalog(db):
    return db.execute("select name, direction, enabled, config::text"
                      " from pgtrickle.list_relay_configs() order by name collate \"C\"")


def versions(db):
    """Differs when any row of the catalog was written."""
    return db.execute("select name, xmin::text from pgtrickle.relay_config order by 1")


def changes(text):
    """The changes that --json prints, by pipeline."""
    return {one["name"]: (one["change"], *one["keys"]) for one in json.loads(text)["pipelines"]}


# Create, change, enable, disable, delete ---------------------------------------------------


def test_it_prints_what_is_created_changed_switched_and_left_alone(orders, db):
    set_outbox(db, "kept", to_file("orders", "/tmp/kept"))
    said = apply(db, TWO)
    assert [line.split() for line in said.splitlines()[:2]] == \
        [["created", "one"], ["created", "two", "(disabled)"]]
    assert "kept" in said.splitlines()[-1] and "--prune" in said
    assert [(name, enabled) for name, _, enabled, _ in catalog(db)] == \
        [("kept", True), ("one", True), ("two", False)]

    changed = TWO.replace("batch_size = 10", "batch_size = 20").replace("/hook", "/other") \
        .replace('name = "one"', 'name = "one"\nenabled = false')
    assert changes(apply(db, changed, "--json")) == {
        "kept": ("not_in_file",), "one": ("disabled",),
        "two": ("changed", "batch_size", "sink.url")}
    assert changes(apply(db, changed.replace("enabled = false", "enabled = true"), "--json")) == {
        "kept": ("not_in_file",), "one": ("enabled",), "two": ("enabled",)}
    assert [row[2] for row in catalog(db)] == [True, True, True]
    assert changes(apply(db, changed, "--prune", "--json"))["kept"] == ("deleted",)
    assert [name for name, *_ in catalog(db)] == ["one", "two"]


def test_applied_twice_it_writes_nothing(orders, db):
    apply(db, TWO)
    before = versions(db)
    assert apply(db, TWO).splitlines() == ["2 unchanged"]
    assert versions(db) == before


def test_a_dry_run_says_the_same_and_changes_nothing(orders, db):
    set_outbox(db, "old", to_file("orders", "/tmp/old"))
    before = versions(db)
    dry = apply(db, TWO, "--prune", "--dry-run")
    assert "nothing was changed" in dry and versions(db) == before
    assert dry.startswith(apply(db, TWO, "--prune"))
    assert [name for name, *_ in catalog(db)] == ["one", "two"]


def test_a_file_by_its_path_and_the_outbox_that_is_missing(db, tmp_path):
    """As set_relay_outbox in psql does: the name is looked up by the role's path."""
    make_table(db, outbox=False)
    path = tmp_path / "pipelines.toml"
    path.write_text(TWO)
    done = run_command("apply", "-f", path, "--postgres-url", db.dsn)
    assert done.returncode == OK, done.stderr
    assert db.one("select count(*) from pgtrickle.relay_outboxes") == 1
    missing = run_command("apply", "-f", tmp_path / "none.toml", "--postgres-url", db.dsn)
    assert missing.returncode == INVALID and "none.toml" in missing.stderr


# All or nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong, place, words", [
    ("batch_sise = 10", "input:11:", ['Did you mean "batch_size"?']),
    ("batch_size = -1", "input:11:", ["from 1 to"]),
    ("batch_size = ", "input:11:", []),
    ("batch_size = 10\nenbled = true", "input:12:", ['Did you mean "enabled"?']),
    ("batch_size = 10\ndirection = 'foward'", "input:12:", ['Did you mean "forward"?']),
    ("batch_size = 10\nsink.urll = 'x'", "input:", ["urll"]),
    ("batch_size = 10\nretention_hours = '${env:HOURS}'", "input:7:", ["reference"]),
    ("batch_size = 10\nfilter = \"a\\u0000b\"", "input:12:", ["U+0000"]),
    ("batch_size = 10\n[[pipline]]\nname = 'x'", "input:12:", ['Did you mean "pipeline"?']),
    ("batch_size = 10\n[[pipeline]]\nname = 'one'", "input:12:", ["another pipeline"]),
    ("batch_size = 10\n[[pipeline]]\nname = 'x'\nconfig = '{'", "input:14:", ["JSON"]),
    ("batch_size = 10\n[[pipeline]]\nname = 'x'\nconfig = '{}'\nstart = 'latest'", "input:14:",
     ["whole configuration"]),
    ("batch_size = 10\n[global]\nlog_level = 'info'", "input:12:", ["[global]"]),
])
def test_a_broken_file_changes_nothing_and_names_place_and_nearest_word(orders, db, wrong, place,
                                                                        words):
    set_outbox(db, "old", to_file("orders", "/tmp/old"))
    before = versions(db)
    broken = TWO.replace("batch_size = 10", wrong)
    if "sink.urll" in wrong:
        broken = broken.replace("sink.urll = 'x'\n", "").replace("url =", "urll = 'x'\nurl =")
    said = apply(db, broken, "--prune", code=INVALID)
    assert place in said and all(word in said for word in words), said
    assert versions(db) == before


def test_what_the_database_alone_refuses_changes_nothing_either(orders, db):
    said = apply(db, TWO.replace('"webhook"', '"webhok"'), code=INVALID)
    assert "input:7:" in said and "webhook" in said
    said = apply(db, TWO.replace('type = "outbox", stream_table = "orders"',
                                 'type = "outbox", stream_table = "nowhere"'), code=INVALID)
    assert "input:7:" in said and "nowhere" in said
    assert catalog(db) == []


def test_every_problem_of_a_file_is_named_at_once(orders, db):
    said = apply(db, TWO.replace("batch_size", "batch_sise").replace("url =", "ulr ="), code=INVALID)
    assert '"batch_size"' in said and '"url"' in said


def test_an_empty_file_deletes_nothing(orders, db):
    apply(db, TWO)
    assert "no pipeline" in apply(db, "", "--prune", code=FAILED)
    assert len(catalog(db)) == 2
    assert "left alone" in apply(db, "")


def test_a_role_without_the_right_changes_nothing(orders, db):
    apply(db, TWO, dsn=db.relay_dsn, code=FAILED)
    assert catalog(db) == []


def test_a_name_that_a_configuration_file_has_too_is_refused(orders, db, tmp_path):
    path = tmp_path / "relay.toml"
    path.write_text('[[pipeline]]\nname = "one"\nstream_table = "orders"\nsink = {type = "memory"}\n')
    said = apply(db, TWO, "--config", path, code=INVALID)
    assert "relay.toml:1" in said and catalog(db) == []


# There and back ----------------------------------------------------------------------------


def test_exported_pipelines_are_the_same_in_another_database(db, other_db):
    for one in (db, other_db):
        make_table(one)
    apply(db, TWO)
    db.execute("""
        select pgtrickle.set_relay_outbox('flat "quoted" - Ünïcode.名前', config => '{
          "stream_table": "orders", "sink_type": "nats", "nats_url": "nats://${env:USER}@localhost",
          "subject_template": "a.{op}", "retention_hours": 7, "retention_hold_hours": 1.50,
          "start": "latest", "columns": ["id", "name"], "headers": {"when": "2026-01-02T03:04:05Z",
          "multi": "line\\nand \\"quote\\" \\\\", "many": 123456789012345678901234567890}}');
        select pgtrickle.set_relay_outbox('with null', '{"stream_table": "orders",
          "sink_type": "memory", "filter": null}');
        select pgtrickle.set_relay_inbox('reverse', config => '{"source_type": "nats",
          "nats_url": "nats://localhost", "nats_stream": "s", "inbox_table": "inbox"}');
        select pgtrickle.set_relay('bridge', '{"source": {"type": "outbox", "outbox": "orders"},
          "sink": {"type": "file", "path": "/tmp/x"}, "retry": {"min": "1s"}}', true);
        select pgtrickle.set_relay(repeat('ü', 31) || '.', '{"source": {"type": "stdin"},
          "sink": {"type": "stdout"}}')""")
    file = export(db).stdout
    apply(other_db, file)
    assert catalog(other_db) == catalog(db)
    assert export(other_db).stdout == file
    assert set(changes(apply(db, file, "--prune", "--json")).values()) == {("unchanged",)}
    assert export(db, "--all").stdout == file
    some = export(db, "one", "reverse").stdout
    assert some.count("[[pipeline]]") == 2 and 'name = "reverse"' in some


def test_a_misspelt_name_is_not_exported(orders, db):
    apply(db, TWO)
    assert 'did you mean "two"' in export(db, "twoo", code=FAILED).stderr


def random_text(dice):
    letters = "abc \"'\\{}[]=#.,\n\t\r-_%$äß名🎉\u200b\u00a0\x7f\x01'''\"\"\""
    return "".join(dice.choice(letters) for _ in range(dice.randrange(1, 20))) + "z"


def random_number(dice):
    digits = "".join(dice.choice("0123456789") for _ in range(dice.randrange(1, 30)))
    return dice.choice(["", "-"]) + "1" + digits + dice.choice(["", ".0", ".10", ".5", "." + digits])


def random_config(dice):
    """As JSON text: Python's own numbers would not keep the digits."""
    headers = ", ".join(
        f"{json.dumps('h' + str(number) + random_text(dice))}: " + dice.choice(
            [json.dumps(random_text(dice)), random_number(dice), "true", "false"])
        for number in range(dice.randrange(5)))
    parts = ['"stream_table": "orders"', f'"sink": {{"type": "memory"}}', f'"headers": {{{headers}}}',
             f'"retention_hold_hours": {dice.choice(["1", "1.0", "1.50", "0.1", "168.00000000001"])}',
             f'"columns": {json.dumps([random_text(dice) for _ in range(dice.randrange(3))])}',
             f'"retry": {dice.choice(["null", "{}"])}', '"id_prefix": null',
             f'"batch_size": {dice.choice(["1", "1000", "5.0"])}',
             f'"event_envelope": {dice.choice(["true", "false"])}']
    rest = parts[2:]
    dice.shuffle(rest)
    return "{" + ", ".join(parts[:2] + rest[:dice.randrange(len(rest) + 1)]) + "}"


def test_random_configurations_survive_the_round_trip(db, other_db):
    dice = random.Random(17)
    for one in (db, other_db):
        make_table(one)
    stored = 0
    while stored < 60:
        name = f"p{stored} " + "".join(c for c in random_text(dice) if c.isprintable()).strip()
        config = random_config(dice)
        # The catalog takes what it takes; what it holds is what must survive.
        stored += db.one("select count(*) from (select pgtrickle.set_relay_outbox(%s,"
                         " config => %s::jsonb, enabled => %s)) t",
                         (name, config, dice.random() < 0.5)) if valid(db, name, config) else 0
    file = export(db).stdout
    apply(other_db, file)
    assert catalog(other_db) == catalog(db)
    assert set(changes(apply(other_db, file, "--json")).values()) == {("unchanged",)}


def valid(db, name, config):
    return db.one("select pgtrickle_internal.relay_problems(%s, 'forward', %s::jsonb)",
                  (name, config)) == []


def test_a_secret_is_exported_with_a_warning_or_masked_if_asked(orders, db):
    set_outbox(db, "secret", {"stream_table": "orders", "sink": {
        "type": "nats", "url": "nats://localhost", "token": "very-secret-token"}})
    plain = export(db)
    assert "very-secret-token" in plain.stdout and "--mask-secrets" in plain.stderr
    masked = export(db, "--mask-secrets")
    assert "very-secret" not in masked.stdout + masked.stderr and "***" in masked.stdout
    before = versions(db)
    assert "masked" in apply(db, masked.stdout, code=INVALID) and versions(db) == before


# Beside others -----------------------------------------------------------------------------


def test_a_change_that_commits_meanwhile_is_seen(orders, db):
    apply(db, TWO)
    with db.connect(autocommit=False) as session:
        session.execute("select pgtrickle.set_relay_outbox('one', config => '{"
                        '"stream_table": "orders", "sink_type": "memory", "batch_size": 5}\')')
        changed = TWO.replace('name = "one"', 'name = "one"\nbatch_size = 7')
        argv = [relay_binary(), "apply", "-f", "-", "--json", "--postgres-url", admin(db)]
        running = subprocess.Popen(argv, env=clean_environment(), stdin=subprocess.PIPE, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.stdin.write(changed)
        running.stdin.close()
        eventually(lambda: db.one("select count(*) from pg_stat_activity where wait_event_type = "
                                  "'Lock' and application_name = 'pgtrickle-relay command'"), 60)
        session.commit()
    assert running.wait(60) == OK, running.stderr.read()
    # sink_type is of the other session: the difference was taken again, after its commit.
    assert changes(running.stdout.read())["one"] == ("changed", "batch_size", "sink", "sink_type")
    assert '"batch_size": 7' in dict((row[0], row[3]) for row in catalog(db))["one"]


def test_two_files_at_once_leave_one_of_them(orders, db):
    dsn = admin(db)
    files = [TWO.replace("batch_size = 10", f"batch_size = {size}") for size in (11, 12, 13, 14)]
    argv = [relay_binary(), "apply", "-f", "-", "--prune", "--postgres-url", dsn]
    running = [subprocess.Popen(argv, env=clean_environment(), stdin=subprocess.PIPE, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in files]
    for process, file in zip(running, files):
        process.stdin.write(file)
        process.stdin.close()
    for process in running:
        assert process.wait(120) == OK, process.stderr.read()
    assert [set(changes(apply(db, file, "--dry-run", "--json")).values()) for file in files].count(
        {("unchanged",)}) == 1


def test_many_pipelines(orders, db):
    count = 1000 if LONG else 200
    many = "".join(f'[[pipeline]]\nname = "p{number}"\nstream_table = "orders"\n'
                   f'sink = {{ type = "memory" }}\nid_prefix = "p{number}"\n'
                   for number in range(count))
    assert apply(db, many, timeout=280).count("created") == count
    assert apply(db, many, timeout=120).splitlines() == [f"{count} unchanged"]
    # All or nothing, at the last one.
    before = versions(db)
    last = f'"p{count - 1}"\nstream_table = "orders"'
    broken = many.replace("memory", "stdout").replace(last, last.replace("orders", "nowhere"))
    apply(db, broken, code=INVALID, timeout=280)
    assert versions(db) == before
