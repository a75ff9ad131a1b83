"""How many lines a program has written."""

import os
import threading
import time


class PipeCounter:
    """Counts the lines that come through a pipe."""

    def __init__(self):
        self._read_end, self.write_end = os.pipe()
        self._lines = 0
        self._at = 0.0
        self.first = 0.0  # when the first line was read
        self._changed = threading.Condition()

    def follow(self):
        """To be called once the writer has its end."""
        os.close(self.write_end)
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        while data := os.read(self._read_end, 1 << 20):
            with self._changed:
                self._at = time.monotonic()
                self.first = self.first or self._at
                self._lines += data.count(b"\n")
                self._changed.notify_all()
        os.close(self._read_end)

    def wait(self, lines):
        """The moment when the last of so many lines was read."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._lines >= lines, 300), self._lines
            assert self._lines == lines
            return self._at
