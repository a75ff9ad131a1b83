"""What goes on in a thread of its own while a test does something else."""

import threading


class Background:
    """Runs `_run` while a `with` lasts. `_run` returns soon when `_stop` is set."""

    def __init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        raise NotImplementedError

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(90)
