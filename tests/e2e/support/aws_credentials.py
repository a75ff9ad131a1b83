"""The places where AWS programs look for credentials."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("environment", "profile", "role", "web identity", "container", "instance")


class MetadataService:
    """What hands out credentials: the token service, a container's and an instance's. They are good
    for `lifetime` seconds; None: for ever. `status` other than 200: it hands out nothing."""

    def __init__(self):
        self.asked = []
        self.granted = {}  # access key -> when it ends, in seconds since 1970; None: never
        self.lifetime = None
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _answer(self, text, status=200):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_PUT(self):
                service.asked.append(("PUT", self.path, dict(self.headers), b""))
                self._answer("metadata-token", service.status)

            def do_GET(self):
                service.asked.append(("GET", self.path, dict(self.headers), b""))
                if self.path.endswith("/security-credentials/"):
                    return self._answer("relay-role")
                key, expiration = f"AKIAGRANTED{len(service.asked)}", "2099-01-01T00:00:00Z"
                service.granted[key] = None
                if service.lifetime is not None:
                    service.granted[key] = int(time.time()) + service.lifetime
                    expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ",
                                               time.gmtime(service.granted[key]))
                self._answer(json.dumps({
                    "AccessKeyId": key, "SecretAccessKey": "granted", "Token": "granted-token",
                    "Expiration": expiration}), service.status)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.asked.append(("POST", self.path, dict(self.headers), body))
                self._answer("<R><Credentials><AccessKeyId>AKIAASSUMED</AccessKeyId>"
                             "<SecretAccessKey>assumed</SecretAccessKey>"
                             "<SessionToken>assumed-token</SessionToken>"
                             "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()


def environment(kind, service, directory):
    """That of a program which finds its credentials there, and the access key that it must use."""
    def file(label, text):
        path = os.path.join(directory, label)
        with open(path, "w") as target:
            target.write(text)
        return path
    none = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true"}
    if kind == "environment":
        return {**none, "AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_SESSION_TOKEN": "t"}, "AKIAENV"
    if kind == "profile":
        shared = file("credentials", "[default]\naws_access_key_id = WRONG\n"
                      "aws_secret_access_key = x\n[relay]\naws_access_key_id = AKIAFILE\n"
                      "aws_secret_access_key = s\n")
        return {**none, "AWS_SHARED_CREDENTIALS_FILE": shared, "AWS_PROFILE": "relay"}, "AKIAFILE"
    if kind == "role":
        config = file("config", "[profile relay]\nrole_arn = arn:aws:iam::1:role/r\n"
                      "source_profile = base\n[profile base]\naws_access_key_id = AKIABASE\n"
                      "aws_secret_access_key = s\n")
        return {**none, "AWS_CONFIG_FILE": config, "AWS_PROFILE": "relay",
                "AWS_ENDPOINT_URL_STS": service.url}, "AKIAASSUMED"
    if kind == "web identity":
        return {**none, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
                "AWS_WEB_IDENTITY_TOKEN_FILE": file("token", "identity-token\n"),
                "AWS_ENDPOINT_URL_STS": service.url}, "AKIAASSUMED"
    if kind == "container":
        return {**none, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.url}/creds",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container-token"}, "AKIAGRANTED"
    return {**none, "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}, "AKIAGRANTED"
