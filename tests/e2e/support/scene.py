"""What a relay and its commands say of what is broken, place by place."""

import json
import re
import time

from .relay import run_command


class Scene:
    """A database with a relay, in which things are broken from `since` on.

    `relay` may be None, or have ended: then only `check` and `status` say something. `config` is a
    TOML file that all of them use.
    """

    def __init__(self, dsn, relay=None, config=None, env=None):
        self.dsn, self.relay, self.config, self.env = dsn, relay, config, env
        self.refusals = []  # what statements of SQL said
        self.since = time.monotonic()

    def says(self, place):
        """What stands there, one text for each thing that is said."""
        return {"log": self._log, "/health": self._health, "check": self._check,
                "status": self._status, "SQL": lambda: self.refusals}[place]()

    def _log(self):
        # An error of the start has its remedy on a line of its own.
        return "\n".join(self.relay.log_lines).replace("\n  remedy: ", " remedy: ").split("\n")

    def _health(self):
        try:
            _, health = self.relay.health()
        except OSError:
            return []  # not up yet
        pipelines = health.pop("pipelines", [])
        return [_text(each) for each in [health, *pipelines]]

    def _command(self, *arguments):
        options = ["--config", self.config] if self.config else []
        url = {"PGTRICKLE_RELAY_POSTGRES_URL": self.dsn} if self.dsn else {}
        return run_command(*arguments, *options, env=url | (self.env or {}))

    def _check(self):
        done = self._command("check", "--json")
        if not done.stdout:
            return [done.stderr]
        return [_text(finding) for finding in json.loads(done.stdout)["findings"]
                if not finding["ok"] or finding["warning"]]

    def _status(self):
        done = self._command("status")
        return [done.stderr, *done.stdout.splitlines()]

    def recoveries(self, pipeline):
        """The lines that say that a failure of the pipeline's source or sink has passed."""
        return [line for line in self.relay.log_lines
                if re.search(rf"\[{re.escape(pipeline)}\] s\w+_failed: recovered after ", line)]


def _text(value):
    """The words of a JSON object."""
    if isinstance(value, dict):
        return " ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return str(value)

