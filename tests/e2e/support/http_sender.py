"""A sender of webhooks as there are many: it keeps what it has to say until it was answered with 200,
and says it again on 503 and on a broken or refused connection."""

import collections
import http.client
import threading


class HttpSender:
    """Posts to 127.0.0.1:`port` over `connections` connections, from threads of its own."""

    PAUSE = 0.02    # before something is said again
    PATIENCE = 60   # for an answer

    def __init__(self, port, connections=8):
        self.port = port
        self.refused = []  # (status, id) of what no repetition can help
        self._waiting = collections.deque()
        self._open = 0     # what has not been answered with 200
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True)
                         for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def send(self, path, headers, body):
        with self._changed:
            self._waiting.append((path, headers, body))
            self._open += 1
            self._changed.notify()

    def unanswered(self):
        with self._changed:
            return self._open

    def close(self):
        """Forgets what is left."""
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    def _next(self):
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending.is_set())
            return None if self._ending.is_set() else self._waiting.popleft()

    def _run(self):
        connection = None
        while (message := self._next()) is not None:
            status = None
            while status is None and not self._ending.is_set():
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                            timeout=self.PATIENCE)
                status, goes_on = self._say(connection, *message)
                if not goes_on:
                    connection.close()
                    connection = None
                if status is None:
                    self._ending.wait(self.PAUSE)
            with self._changed:
                if status == 200:
                    self._open -= 1
                elif status is not None:
                    self.refused.append((status, message[1].get("pgtrickle-id")))

    @staticmethod
    def _say(connection, path, headers, body):
        """(the status; None: to be said again, whether the connection can be used again)"""
        try:
            connection.request("POST", path, body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return None, False
        return None if answer.status == 503 else answer.status, not answer.will_close
