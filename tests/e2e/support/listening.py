"""A server of the tests that has a thread for each connection."""

import socket
import threading


def listen(serve):
    """Listens on a free port until the socket that it returns is closed; `serve` gets each connection,
    in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener
