"""Programs on a terminal: a pseudo-terminal whose output is read, and tmux, which is one that shows."""

import fcntl
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
import termios
import unicodedata

from .relay import clean_environment, relay_binary

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(extra=None):
    env = clean_environment({"TERM": "xterm-256color", "LANG": "C.UTF-8"})
    for name in ("COLUMNS", "LINES", "NO_COLOR", "LC_ALL", "LC_CTYPE"):
        env.pop(name, None)
    for name, value in (extra or {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def on_terminal(*arguments, columns=80, lines=24, env=None, timeout=60, program=None):
    """Runs the relay with a terminal for standard input, output and errors; (exit code, text)."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen([program or relay_binary(), *map(str, arguments)], stdin=slave,
                               stdout=slave, stderr=slave, env=environment(env),
                               start_new_session=True)
    os.close(slave)
    written = b""
    try:
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the last one who had it open has ended
                break
            if not piece:
                break
            written += piece
        return process.wait(timeout), written.decode(errors="replace").replace("\r\n", "\n")
    finally:
        os.close(master)
        if process.poll() is None:
            process.kill()
            process.wait()


def plain(text):
    """The text without colours and the like."""
    return _ESCAPES.sub("", text)


def width(line):
    """How many columns a line takes, by Python's tables and not by those of the program."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in line)


class Tmux:
    """A window of a server of its own. Use it as a context manager."""

    def __init__(self, *arguments, columns=80, lines=24, env=None, program=None):
        self.folder = tempfile.mkdtemp(prefix="relay-tmux-")
        self._socket = os.path.join(self.folder, "socket")
        self._env = environment(env)
        command = shlex.join([program or relay_binary(), *map(str, arguments)])
        # The shell stays, so that what is left on the screen can be read.
        self._run("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines),
                  f"{command}; echo ended with $?; exec sleep 600")

    @staticmethod
    def is_here():
        return shutil.which("tmux") is not None

    def _run(self, *arguments):
        done = subprocess.run(["tmux", "-u", "-S", self._socket, *arguments], env=self._env,
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self):
        return self._run("capture-pane", "-p")

    def resize(self, columns, lines):
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def press(self, *keys):
        self._run("send-keys", *keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], env=self._env,
                       capture_output=True, timeout=30)
        shutil.rmtree(self.folder)
