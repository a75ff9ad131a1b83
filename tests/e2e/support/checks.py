"""Running `pgtrickle-relay check` and reading what it says of each pipeline."""

import json

from .pipelines import set_outbox
from .relay import run_command

INBOX = {"type": "pg-inbox", "inbox_name": "mail"}


def check(db, *arguments):
    """(exit code, {pipeline: [(kind, message, remedy)]}); what concerns no pipeline is under ''."""
    done = run_command("check", "--json", *arguments,
                       env={"PGTRICKLE_RELAY_POSTGRES_URL": db.relay_dsn})
    told = {}
    for each in json.loads(done.stdout)["findings"]:
        kind = "warning" if each["warning"] else "good" if each["ok"] else "problem"
        told.setdefault(each["pipeline"], []).append((kind, each["message"], each["remedy"]))
    return done.returncode, told


def problems(told, pipeline):
    return [(message, remedy) for kind, message, remedy in told.get(pipeline, ())
            if kind == "problem"]


def warnings(told, pipeline):
    return [(message, remedy) for kind, message, remedy in told.get(pipeline, ())
            if kind == "warning"]


def notes(told, pipeline):
    return [message for kind, message, _ in told.get(pipeline, ()) if kind == "good"]


def the_problem(told, pipeline, message, remedy):
    """The pipeline's only problem, with these words in it."""
    found = problems(told, pipeline)
    assert len(found) == 1 and message in found[0][0] and remedy in found[0][1], (pipeline, found)


def forward(db, name, sink, **options):
    set_outbox(db, name, {"stream_table": "orders", "sink": sink, **options})


def reverse(db, name, source, sink=None, enable=True):
    db.execute("select pgtrickle.set_relay_inbox(%s, %s::jsonb)",
               (name, json.dumps({"source": source, "sink": sink or INBOX})))
    if enable:
        db.execute("select pgtrickle.enable_relay(%s)", (name,))


def no_problem(told, *pipelines):
    for pipeline in pipelines:
        assert pipeline in told and not problems(told, pipeline), (pipeline, told.get(pipeline))
