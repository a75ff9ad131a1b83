"""An HTTP proxy that keeps what it was asked, checks credentials, and misbehaves on command."""

import base64
import os
import socket
import ssl
import subprocess
import threading
import urllib.parse
from dataclasses import dataclass

from .listening import listen
from .processes import temporary_directory


@dataclass
class Asked:
    method: str
    target: str      # as in the request line
    headers: dict    # names in lower case
    status: int      # what the proxy itself answered; 0: it passed the request on


class HttpProxy:
    """CONNECT and absolute-form. `routes` says where it really connects to: {"host:port": port here}.
    With `credentials` ("user:password") it answers 407 to requests with others. `fault` is a status,
    "close", "hang", "garbage" or "echo" (422, with what was sent); None: nothing is wrong."""

    def __init__(self, credentials=None, tls=None, routes=None):
        self.credentials, self.routes, self.fault = credentials, routes or {}, None
        self.asked = []
        self._context = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._open, self._closed = [], threading.Event()
        self._listener = listen(self._serve)
        self.port = self._listener.getsockname()[1]

    def url(self, credentials=None):
        scheme = "https" if self._context else "http"
        user = f"{credentials}@" if credentials else ""
        return f"{scheme}://{user}127.0.0.1:{self.port}"

    def close(self):
        self._closed.set()
        self._listener.close()
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _serve(self, client):
        try:
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
            self._open.append(client)
            while self._one(client):
                pass
        except (OSError, ValueError):
            pass
        finally:
            client.close()

    def _one(self, client):
        head = _head(client)
        if not head:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in
                   (line.partition(":") for line in lines)}
        body = _exactly(client, int(headers.get("content-length", 0)))
        status = self.fault if isinstance(self.fault, int) else 0
        if self.credentials and headers.get("proxy-authorization") != basic(self.credentials):
            status = 407
        self.asked.append(Asked(method, target, headers, status))
        if self.fault == "hang":
            self._closed.wait()
            return False
        if self.fault == "close":
            return False
        if self.fault == "garbage":
            client.sendall(b"\x00\x01 what is this?\r\n\r\n" * 10)
            return False
        if self.fault == "echo":
            client.sendall(b"HTTP/1.1 422 no\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
            return True
        if status:
            client.sendall(f"HTTP/1.1 {status} no\r\nContent-Length: 5\r\n\r\nproxy".encode())
            return method != "CONNECT"
        if method == "CONNECT":
            self._tunnel(client, target)
            return False
        return self._forward(client, method, target, headers, body)

    def _connect(self, authority):
        host, _, port = authority.rpartition(":")
        if authority in self.routes:
            host, port = "127.0.0.1", self.routes[authority]
        server = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self._open.append(server)
        return server

    def _tunnel(self, client, target):
        try:
            server = self._connect(target)
        except OSError:
            client.sendall(b"HTTP/1.1 502 no\r\nContent-Length: 0\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Of-The-Proxy: yes\r\n\r\n")
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()
        server.close()

    def _forward(self, client, method, target, headers, body):
        url = urllib.parse.urlsplit(target)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        server = self._connect(f"{url.hostname}:{url.port or 80}")
        passed = {name: value for name, value in headers.items()
                  if name not in ("proxy-authorization", "proxy-connection", "connection")}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in passed.items()),
                 "connection: close", "", ""]
        server.sendall("\r\n".join(lines).encode("latin-1") + body)
        head = _head(server)
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), 0)
        client.sendall(head + b"\r\n\r\n" + _exactly(server, length))
        server.close()
        return True


def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def _head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head[:-4]


def _exactly(connection, length):
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise OSError("cut off")
        data += part
    return data


def _pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


_LOOKUP = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "name=address name=address ..."; the address "slow" is never found. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
      dlsym(RTLD_NEXT, "getaddrinfo");
  const char *all = getenv("NAMES_OF_THE_TEST");
  char address[64];
  size_t length = node ? strlen(node) : 0;
  for (const char *at = all; node && at && *at;) {
    size_t entry = strcspn(at, " ");
    if (entry > length && !strncmp(at, node, length) && at[length] == '=' &&
        entry - length - 1 < sizeof address) {
      memcpy(address, at + length + 1, entry - length - 1);
      address[entry - length - 1] = 0;
      if (!strcmp(address, "slow")) sleep(60);
      return real(address, service, hints, result);
    }
    at += entry;
    at += *at == ' ';
  }
  return real(node, service, hints, result);
}
"""


def names(**addresses):
    """The environment of a program that resolves these names to these addresses ("_" is "." in a
    name)."""
    directory = temporary_directory("names")
    source, library = os.path.join(directory, "names.c"), os.path.join(directory, "names.so")
    with open(source, "w") as text:
        text.write(_LOOKUP)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": library, "NAMES_OF_THE_TEST": " ".join(
        f"{name.replace('_', '.')}={address}" for name, address in addresses.items())}
