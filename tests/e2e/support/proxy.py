"""A TCP proxy that misbehaves on command: cut, stall, one-way cut, slow link, cut after N bytes."""

import socket
import threading
import time

from .processes import free_port

UP = "up"      # from the client to the server
DOWN = "down"  # from the server to the client


class FaultProxy:
    """Forwards 127.0.0.1:`port` to `target_port` until told otherwise. Context manager."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.port = free_port()
        self._state = threading.Condition()
        self._links = set()
        self._refusing = False
        self._stalled = set()
        self._rate = None
        self._cut_after = {}
        self.forwarded = {UP: 0, DOWN: 0}
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    # Faults --------------------------------------------------------------------------------

    def cut(self):
        """Resets every connection, and new ones at once, until restore()."""
        with self._state:
            self._refusing = True
        self.cut_once()

    def cut_once(self):
        """Resets every connection; new ones are served."""
        with self._state:
            links = list(self._links)
        for link in links:
            self._reset(link)

    def stall(self, *directions):
        """Holds all bytes back (both ways by default): connections stay open, nothing arrives."""
        with self._state:
            self._stalled = set(directions or (UP, DOWN))

    def slow(self, bytes_per_second):
        with self._state:
            self._rate = bytes_per_second

    def cut_after(self, count, direction=UP):
        """Resets the connection that carries the `count`-th byte from now on in that direction."""
        with self._state:
            self._cut_after[direction] = count

    def cut_is_pending(self):
        """Whether a cut_after() has not come to pass yet."""
        with self._state:
            return bool(self._cut_after)

    def restore(self):
        """No faults any more; what was held back flows on."""
        with self._state:
            self._refusing, self._stalled, self._rate = False, set(), None
            self._cut_after = {}
            self._state.notify_all()

    # Forwarding ----------------------------------------------------------------------------

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            with self._state:
                refusing = self._refusing
            if refusing:
                _abort(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=10)
            except OSError:
                _abort(client)
                continue
            server.settimeout(None)
            link = (client, server)
            with self._state:
                self._links.add(link)
            for source, target, direction in ((client, server, UP), (server, client, DOWN)):
                threading.Thread(target=self._pump, args=(link, source, target, direction),
                                 daemon=True).start()

    def _pump(self, link, source, target, direction):
        try:
            while True:
                self._wait_while_stalled(link, direction)
                data = source.recv(65536)
                if not data:
                    break
                self._wait_while_stalled(link, direction)
                with self._state:
                    if link not in self._links:
                        return  # what was held back when the link was cut never arrives
                    rate, allowed = self._rate, self._cut_after.get(direction)
                    if allowed is not None:
                        self._cut_after[direction] = allowed - len(data)
                    if allowed is not None and allowed <= len(data):
                        del self._cut_after[direction]
                        data, last = data[:allowed], True
                    else:
                        last = False
                if rate:
                    for start in range(0, len(data), max(1, rate // 20)):
                        piece = data[start:start + max(1, rate // 20)]
                        time.sleep(len(piece) / rate)
                        target.sendall(piece)
                else:
                    target.sendall(data)
                self.forwarded[direction] += len(data)
                if last:
                    self._reset(link)
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._reset(link)

    def _wait_while_stalled(self, link, direction):
        with self._state:
            while direction in self._stalled and link in self._links:
                self._state.wait(0.5)

    def _reset(self, link):
        with self._state:
            self._links.discard(link)
            self._state.notify_all()
        for end in link:
            _abort(end)

    def close(self):
        self._listener.close()
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _abort(end):
    """Closes with a reset, as a cut network or a killed peer shows itself."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
