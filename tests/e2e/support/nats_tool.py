"""Follows a remedy that names a command of the NATS tool, which need not be installed here."""

import re
import shlex


def add_stream(client, remedy, server):
    """Makes the stream that `nats stream add` in a remedy would make; (name, subjects)."""
    command = shlex.split(re.search(r"nats stream add .*", remedy)[0])
    assert command[:3] == ["nats", "stream", "add"], command
    name, *options = command[3:]
    assert options == ["--subjects", options[1], "--defaults", "--server", server.url], command
    subjects = options[1].split(",")
    client.create_stream(name, subjects)
    return name, subjects
