"""What throw-away servers of one process have in common."""

import os
import signal
import subprocess


class Server:
    """A server that `start` makes a `process` of, and that writes to `log_path`. It keeps its port
    and its data over restarts."""

    patience = 5  # seconds that an orderly stop may take
    process = None
    log_path = os.devnull

    def start(self):
        raise NotImplementedError

    def stop(self):
        if self.process is None:
            return
        self.process.thaw()
        self.process.signal(signal.SIGTERM)
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill9()
        self.process = None

    def kill9(self):
        self.process.kill9()
        self.process = None

    def restart(self, mode="stop"):
        {"stop": self.stop, "kill9": self.kill9}[mode]()
        return self.start()

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def log(self):
        """The end of what it wrote."""
        try:
            with open(self.log_path, errors="replace") as log:
                return log.read()[-4000:]
        except OSError:
            return ""
