"""The sources `file` and `stdin`, by the real binary."""

import json
import os
import pathlib
import re
import subprocess
import threading

import pytest

from support.bridges import numbers, set_bridge, wait_numbers
from support.inboxes import count
from support.pipelines import SLOW_FACTOR, Lines
from support.postgres import REPOSITORY
from support.relay import Relay
from support.waiting import eventually, holds_for
from support.writers import wait_trouble


@pytest.fixture
def place(tmp_path):
    """A directory that the relay may write to, with the input and the output in it."""
    tmp_path.chmod(0o777)
    return tmp_path


def from_file(path, **options):
    return {"type": "file", "path": str(path), **options}


def append(path, numbers):
    with open(path, "a") as lines:
        lines.writelines(json.dumps({"n": n}) + "\n" for n in numbers)


# What a line becomes -----------------------------------------------------------------------


def test_ids_and_types_are_as_the_documentation_says(db, relay, place):
    lines = Lines(place / "out")
    (place / "in").write_bytes(b'{"id": "own", "event_type": "paid"}\n{"id": 17}\n'
                               b'{"dedup_key": "d"}\n\n{"a": [1, {"id": 2}]}\r\nno json\n')
    inode = (place / "in").stat().st_ino
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        eventually(lambda: len(lines.messages()) == 5)
    own, number, dedup, none, poison = lines.messages()
    assert (own["id"], own["type"]) == ("p:own", "paid")
    assert (number["id"], dedup["id"]) == ("p:17", "p:d")
    assert none["id"].startswith(f"p:{place}/in:{inode}:67:")
    assert none["payload"] == {"a": [1, {"id": 2}]}
    assert poison["payload"] == {"raw_base64": "bm8ganNvbg==",
                                 "content_type": "application/octet-stream"}


def test_what_becomes_id_type_and_key_may_be_mapped(db, relay, place):
    lines = Lines(place / "out")
    (place / "in").write_text('{"order": {"no": 5}, "kind": "x"}\n')
    set_bridge(db, "p", from_file(place / "in", id_from="template:order-{json:/order/no}",
                                    event_type_from="json:/kind",
                                    aggregate_id_from="json:/order/no"), lines.path)
    with relay:
        eventually(lambda: len(lines.messages()) == 1)
    message, = lines.messages()
    assert (message["id"], message["type"], message["key"]) == ("order-5", "x", "5")


def test_ten_thousand_lines_arrive_in_order_and_new_ones_are_followed(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(10_000))
    set_bridge(db, "p", from_file(place / "in"), lines.path, batch_size=700)
    with relay:
        wait_numbers(lines, range(10_000), 60)
        append(place / "in", range(10_000, 10_010))
        wait_numbers(lines, range(10_010))
        eventually(lambda: relay.pipeline("p")["lag"] == 0)


def test_half_a_line_waits_for_its_end(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", [0])
    with open(place / "in", "a") as half:
        half.write('{"n"')
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        wait_numbers(lines, [0])
        holds_for(lambda: numbers(lines) == [0], 0.3)
        with open(place / "in", "a") as rest:
            rest.write(": 1}\n")
        wait_numbers(lines, [0, 1])


def test_without_follow_the_end_of_the_file_is_the_end_and_no_error(db, relay, place):
    lines = Lines(place / "out")
    (place / "in").write_text('{"n": 0}\n{"n": 1}')
    set_bridge(db, "p", from_file(place / "in", follow=False), lines.path)
    with relay:
        wait_numbers(lines, [0, 1])
        eventually(lambda: relay.pipeline("p")["state"] == "idle")
        append(place / "in", [2])
        holds_for(lambda: numbers(lines) == [0, 1] and not relay.pipeline("p")["last_error"], 0.3)


def test_a_line_beyond_the_limit_is_set_aside_and_the_next_ones_go_on(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", [0, "x" * 3_000_000, 1])
    set_bridge(db, "p", from_file(place / "in"), lines.path, max_record_bytes=10_000)
    with relay:
        wait_numbers(lines, [0, 1])
        eventually(lambda: db.execute("select error_code from pgtrickle.relay_dlq") ==
                   [("too_large",)])


def test_the_example_of_the_documentation_fills_an_inbox(db, relay, place):
    page = pathlib.Path(REPOSITORY, "docs/backends/stdout.md").read_text()
    append(place / "events.jsonl", range(100))
    with relay:
        db.execute(re.findall(r"```sql\n(.*?)```", page, re.DOTALL)[1]
                   .replace("/var/log/shop", str(place)))
        eventually(lambda: count(db, "pgtrickle.inbox_events") == 100, 30 * SLOW_FACTOR)


# The position ------------------------------------------------------------------------------


def test_a_clean_restart_goes_on_where_it_was(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(100))
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        wait_numbers(lines, range(100))
    assert (place / "in.p.position").exists()
    append(place / "in", range(100, 200))
    with relay:
        wait_numbers(lines, range(200))


def test_a_killed_relay_loses_nothing(db, relay, place):
    lines = Lines(place / "out")
    set_bridge(db, "p", from_file(place / "in"), lines.path, batch_size=50)
    append(place / "in", [])
    relay.start()
    written = 0
    for _ in range(4):
        for _ in range(20):
            append(place / "in", range(written, written + 100))
            written += 100
        eventually(lambda: numbers(lines))
        relay.kill9()
        relay.start()
    wait_numbers(lines, range(written), 60, once=False)
    relay.stop()


def test_nothing_is_passed_before_the_sink_has_it(db, relay, place):
    missing = place / "later" / "out"  # the file sink makes files, not directories
    append(place / "in", range(10))
    set_bridge(db, "p", from_file(place / "in"), missing)
    with relay:
        eventually(lambda: relay.pipeline("p")["last_error"])
        eventually((place / "in.p.position").exists)
        holds_for(lambda: "offset 0" in (place / "in.p.position").read_text(), 0.5)
    missing.parent.mkdir(mode=0o777)
    with relay:
        wait_numbers(Lines(missing), range(10))


def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_start(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(10))
    append(place / "in-other.jsonl", [999])  # no rotated file, whatever its name begins with
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        wait_numbers(lines, range(10))
        writer = open(place / "in", "a")
        os.rename(place / "in", place / "in.1")
        writer.write('{"n": 10}\n')  # a writer that has not noticed yet
        writer.close()
        append(place / "in", range(11, 20))
        wait_numbers(lines, range(20))


def test_files_that_were_rotated_while_the_relay_was_away_are_not_skipped(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(10))
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        wait_numbers(lines, range(10))
    append(place / "in", range(10, 20))
    os.rename(place / "in", place / "in.2")
    os.utime(place / "in.2", (1_000_000_000, 1_000_000_000))
    append(place / "in.1", range(20, 30))
    append(place / "in", range(30, 40))
    with relay:
        wait_numbers(lines, range(40))


def test_a_file_that_is_cut_is_read_from_its_start(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(100))
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        wait_numbers(lines, range(100))
        os.truncate(place / "in", 0)
        append(place / "in", range(100, 103))
        wait_numbers(lines, range(103))
        eventually(lambda: "file_cut" in relay.log(), message=relay.log)


def test_a_file_that_is_not_there_yet_is_waited_for(db, relay, place):
    lines = Lines(place / "out")
    set_bridge(db, "p", from_file(place / "in"), lines.path)
    with relay:
        eventually(lambda: relay.pipeline("p"))
        append(place / "in", range(3))
        wait_numbers(lines, range(3))


def test_a_position_that_cannot_be_kept_is_told_before_anything_is_read(db, relay, place):
    lines = Lines(place / "out")
    append(place / "in", range(3))
    set_bridge(db, "p", from_file(place / "in", position_file=str(place / "no" / "where")),
                 lines.path)
    with relay:
        wait_trouble(relay, db, "p", "position file", remedy="position_file")
        assert lines.messages() == []


# Standard input ----------------------------------------------------------------------------


def run_with_input(db, config, data, ends):
    """The relay with `data` on its standard input; `ends()` says when it may be stopped."""
    path = config.pop("config_path")
    path.write_text(config["toml"])
    with subprocess.Popen([Relay(db.relay_dsn).binary, "--postgres-url", db.relay_dsn, "--config",
                           str(path), "--metrics-addr", "127.0.0.1:0"],
                          stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        log = []
        reader = threading.Thread(target=lambda: log.extend(process.stderr))
        reader.start()
        try:
            process.stdin.write(data)
            process.stdin.close()
            eventually(ends, 20 * SLOW_FACTOR, message=lambda: b"".join(log).decode())
            assert process.poll() is None, "the end of the input ends the pipeline's work, not it"
        finally:
            process.terminate()
            assert process.wait(30) == 0
            reader.join()
    return b"".join(log).decode()


def test_standard_input_is_read_to_its_end_which_is_no_error(db, relay_bin, place):
    lines = Lines(place / "out")
    toml = f"""
[[pipeline]]
name = "p"
source = {{ type = "stdin" }}
sink = {{ type = "file", path = "{lines.path}" }}
event_envelope = true
"""
    data = b"".join(b'{"n": %d}\n' % n for n in range(5000)) + b'{"n": 5000}'
    log = run_with_input(db, {"config_path": place / "relay.toml", "toml": toml}, data,
                         lambda: len(lines.messages()) == 5001)
    assert numbers(lines) == list(range(5001))
    assert "source_failed" not in log
    ids = [message["id"] for message in lines.messages()]
    assert len(set(ids)) == 5001 and ids[0].startswith("p:stdin:") and ids[0].endswith(":1")
