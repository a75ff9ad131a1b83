"""The relay as a process, seen from outside: its flags, its log, its HTTP side, its exit code."""

import glob
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import threading

from .pipelines import SLOW_FACTOR
from .postgres import REPOSITORY
from .processes import Process, free_port
from .waiting import eventually

_started = []


def relay_binary():
    """RELAY_BIN, or the newest build/<preset>/pgtrickle-relay; None where there is none."""
    if os.environ.get("RELAY_BIN"):
        return os.environ["RELAY_BIN"]
    found = [path for path in glob.glob(os.path.join(REPOSITORY, "build", "*", "pgtrickle-relay"))
             if os.access(path, os.X_OK)]
    return max(found, key=os.path.getmtime) if found else None


def clean_environment(extra=None):
    """This process's environment without anything that would configure the relay."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("PGTRICKLE_", "PG", "NATS_", "POSTGRES_STREAM__"))
           and not name.lower().endswith("_proxy")}
    # Pipelines in SQL may use files in the folders of tests, as an operator would allow it.
    env["PGTRICKLE_RELAY_ALLOW_FILE"] = f"{tempfile.gettempdir()}/**"
    env.update(extra or {})
    return env


def run_command(*arguments, env=None, timeout=60, stdin=None):
    """Runs the relay as a command; a CompletedProcess with text stdout and stderr."""
    return subprocess.run([relay_binary(), *map(str, arguments)], env=clean_environment(env),
                          capture_output=True, text=True, timeout=timeout, input=stdin)


def get(port, path, method="GET", headers=None, body=None, timeout=5):
    """(status, text) of an HTTP request to the relay on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """A parsed /metrics page."""

    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            match = _SAMPLE.match(line)
            if match:
                labels = dict(_LABEL.findall(match.group(2) or ""))
                self.samples.append((match.group(1), labels, float(match.group(3))))

    def find(self, name, **labels):
        """All samples of that name which carry (at least) these labels."""
        return [(found, value) for sample, found, value in self.samples if sample == name
                and all(found.get(key) == wanted for key, wanted in labels.items())]

    def value(self, name, **labels):
        """The sum of the samples found; None where there is none."""
        found = self.find(name, **labels)
        return sum(value for _, value in found) if found else None


class Relay:
    """`pgtrickle-relay run` with its own metrics port. Use it as a context manager.

    `options` are flags without dashes (`log_level="debug"`); `arguments` go before them.
    """

    prefix = "pgtrickle_relay_"  # of its metrics

    def __init__(self, postgres_url=None, *arguments, env=None, metrics_port=None, binary=None,
                 stdout=None, cwd=None, **options):
        self.binary = binary or relay_binary()
        self.port = metrics_port or free_port()
        argv = [self.binary, *map(str, arguments)]
        if postgres_url is not None:
            options.setdefault("postgres_url", postgres_url)
        options.setdefault("metrics_addr", f"127.0.0.1:{self.port}")
        for name, value in options.items():
            if value is not None:
                argv += [f"--{name.replace('_', '-')}", str(value)]
        self.argv = argv
        self._env = clean_environment(env)
        self._stdout = stdout
        self._cwd = cwd
        self.process = None
        self._log = []
        self._log_thread = None
        self.stdout_lines = []

    # Life and death ------------------------------------------------------------------------

    def start(self):
        assert self.process is None or not self.process.running
        self.process = Process(self.argv, env=self._env, stderr=subprocess.PIPE,
                               stdout=self._stdout or subprocess.PIPE, cwd=self._cwd)
        popen = self.process._popen
        self._log_thread = threading.Thread(target=self._read, args=(popen.stderr, self._log),
                                            daemon=True)
        self._log_thread.start()
        if popen.stdout is not None:
            threading.Thread(target=self._read, args=(popen.stdout, self.stdout_lines),
                             daemon=True).start()
        if self not in _started:
            _started.append(self)
        return self

    @staticmethod
    def _read(stream, lines):
        for line in iter(stream.readline, b""):
            lines.append(line.decode(errors="replace").rstrip("\n"))
        stream.close()

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.running

    def stop(self, deadline=40):
        """SIGTERM; the relay must end by itself, with exit code 0."""
        if self.process is None:
            return
        self.process.thaw()
        # Before it steers its signals itself (right after exec), SIGTERM would just kill it.
        eventually(lambda: not self.running or self._holds(signal.SIGTERM), 20, interval=0.001)
        self.process.signal(signal.SIGTERM)
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.signal(signal.SIGABRT)
            self.process.wait(10)
            raise AssertionError(f"no exit within {deadline} s of SIGTERM:\n{self.log()}")
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log()}"

    def _holds(self, number):
        """Whether the process blocks that signal, which it then takes when it is ready to."""
        # A thread that waits for the signal does not show it as blocked; the others do.
        for status in glob.glob(f"/proc/{self.pid}/task/*/status"):
            try:
                with open(status) as lines:
                    blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)", lines.read(), re.MULTILINE)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(blocked.group(1), 16) >> (number - 1) & 1:
                return True
        return False

    def kill9(self):
        if self.process is not None:
            self.process.kill9()

    def restart(self):
        """Stops it if it runs, and starts it with the same arguments."""
        self.stop() if self.running else None
        return self.start()

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def __enter__(self):
        return self if self.running else self.start()

    def __exit__(self, kind, error, trace):
        if kind is None and self.process is not None and self.process.poll() is None:
            self.stop()
        elif self.process is not None:
            self.process.kill9()

    # What it says --------------------------------------------------------------------------

    def log(self, lines=200):
        return "\n".join(self._log[-lines:])

    @property
    def log_lines(self):
        return list(self._log)

    def health(self):
        """(status code, parsed body) of /health."""
        status, text = get(self.port, "/health")
        return status, json.loads(text)

    def pipeline(self, name):
        """The entry of one pipeline in /health; LookupError where it is not listed (yet)."""
        return {entry["name"]: entry for entry in self.health()[1].get("pipelines", [])}[name]

    def lists(self, name):
        """Whether /health has the pipeline."""
        return any(entry["name"] == name for entry in self.health()[1].get("pipelines", []))

    def metrics(self):
        status, text = get(self.port, "/metrics")
        assert status == 200, text
        return Metrics(text)

    def metric(self, name, **labels):
        """A metric by its name after the prefix; None where it does not exist."""
        return self.metrics().value(self.prefix + name, **labels)

    def wait_metric(self, name, wanted, deadline=15, **labels):
        """Waits until a metric has that value: what was seen elsewhere is counted a moment later."""
        eventually(lambda: self.metric(name, **labels) == wanted, deadline * SLOW_FACTOR,
                   message=lambda: f"{name} {labels} is {self.metric(name, **labels)}, not {wanted}")

    def get(self, path, **options):
        return get(self.port, path, **options)

    def alive(self):
        assert self.running, f"the relay ended:\n{self.log()}"
        return True

    def wait_healthy(self, pipelines=None, deadline=15):
        """Waits for status healthy and, if given, for that many owned pipelines."""
        def healthy():
            self.alive_or_stop_waiting()
            status, body = self.health()
            return (status == 200 and body["status"] == "healthy"
                    and (pipelines is None or body["pipelines_owned"] == pipelines) and body)
        return eventually(healthy, deadline, message=self._story)

    def wait_up(self, deadline=15):
        """Waits until the process answers on its port, healthy or not."""
        def answers():
            self.alive_or_stop_waiting()
            return get(self.port, "/health/live")[0] == 200
        return eventually(answers, deadline, message=self._story)

    def wait_state(self, name, *states, deadline=15):
        """Waits until the pipeline is in one of these states; its /health entry."""
        def reached():
            self.alive_or_stop_waiting()
            entry = self.pipeline(name)
            return entry if entry["state"] in states else None
        return eventually(reached, deadline, message=self._story)

    def alive_or_stop_waiting(self):
        if not self.running:
            raise RelayEnded(f"the relay ended with {self.process.poll()}:\n{self.log()}")

    def _story(self):
        try:
            health = self.health()
        except (OSError, ValueError) as error:
            health = error
        return f"health: {health}\nlog:\n{self.log(60)}"

    def resident_kib(self):
        return _status_kib(self.pid, "VmRSS")

    def peak_kib(self):
        """The highest resident size since the process started."""
        return _status_kib(self.pid, "VmHWM")

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RelayEnded(Exception):
    """The relay's process ended while a test waited for it."""


def _status_kib(pid, field):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise LookupError(field)


def stories():
    """(command line, log) of each relay that the current test started."""
    return [(" ".join(relay.argv), relay.log(400)) for relay in _started]


def forget():
    _started.clear()


def end_all_quietly():
    """Ends what a test left running."""
    for relay in _started:
        if relay.running:
            relay.kill9()
