"""A throw-away SQS: the emulator local-aws-sqs (both protocols, FIFO, in memory) with faults on
command, and boto3 as the client that knows nothing of the relay.

The emulator keeps nothing over a restart. `start` makes the queues again that were there before, as
an empty SQS.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess

import botocore.exceptions

from .processes import Process, free_port, temporary_directory
from .waiting import eventually

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sqs")
REGION = "eu-west-1"
KEYS = {"access_key_id": "AKIATESTTESTTESTTEST", "secret_access_key": "a-secret-of-the-tests"}


def modules():
    """The folder with the emulator, fetched once; None where node is absent or it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                         "pgtrickle-relay-tests", "sqs-2.0.2")
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(cache, "node_modules", "local-aws-sqs", "dist")):
            for name in ("package.json", "package-lock.json"):
                shutil.copy(os.path.join(_HERE, name), cache)
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                                  cwd=cache, capture_output=True, text=True)
            if done.returncode != 0:
                return None
    return os.path.join(cache, "node_modules")


class SqsServer:
    """The emulator on loopback; `queue(name)` makes queues and gives their URL."""

    def __init__(self):
        self.port = free_port()
        self.directory = temporary_directory("sqs")
        self._faults = os.path.join(self.directory, "faults.json")
        self._queues = {}
        self.process = None
        self._client = None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = Process(
                ["node", os.path.join(_HERE, "server.js"), str(self.port), self._faults],
                env={**os.environ, "SQS_MODULES": modules()}, stdout=log, stderr=log)
        eventually(lambda: self.client().list_queues() is not None, 30, message=self.log)
        for name, attributes in self._queues.items():
            self.client().create_queue(QueueName=name, Attributes=attributes)
        return self

    def stop(self):
        if self.process is not None:
            self.process.thaw()
            self.process.kill9()
            self.process = None

    kill9 = stop

    def freeze(self):
        self.process.freeze()

    def thaw(self):
        self.process.thaw()

    def client(self):
        import boto3
        from botocore.config import Config
        if self._client is None:
            self._client = boto3.client(
                "sqs", endpoint_url=self.endpoint, region_name=REGION,
                aws_access_key_id="other", aws_secret_access_key="other",
                config=Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=10))
        return _OsErrors(self._client)

    def queue(self, name, **attributes):
        """Makes a queue (a name ending in .fifo: a FIFO queue); its URL."""
        texts = {key: str(value) for key, value in attributes.items()}
        if name.endswith(".fifo"):
            texts["FifoQueue"] = "true"
        self._queues[name] = texts
        return self.client().create_queue(QueueName=name, Attributes=texts)["QueueUrl"]

    def count(self, url):
        """Messages in the queue, those in work included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.client().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(got[name]) for name in names)

    def faults(self, *faults):
        """What goes wrong from now on: see server.js."""
        with open(f"{self._faults}.new", "w") as file:
            json.dump(faults, file)
        os.replace(f"{self._faults}.new", self._faults)

    def log(self):
        with contextlib.suppress(OSError):
            with open(os.path.join(self.directory, "log"), errors="replace") as log:
                return log.read()[-4000:]
        return ""


class _OsErrors:
    """A boto3 client whose connection errors are OSErrors, as `eventually` expects."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        from botocore.exceptions import BotoCoreError
        call = getattr(self._client, name)

        def checked(*arguments, **options):
            try:
                return call(*arguments, **options)
            except BotoCoreError as error:
                raise OSError(str(error)) from error
        return checked


class Inbox:
    """Takes messages out of a queue and keeps them, in the order in which they came."""

    def __init__(self, server, url):
        self._server, self._url = server, url
        self.messages = []

    def read(self):
        """What came so far: boto3's messages, each with `attributes` as plain texts. While messages
        keep coming it returns after a thousand new ones."""
        client = self._server.client()
        for _ in range(100):
            try:
                got = client.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=10, AttributeNames=["All"],
                    MessageAttributeNames=["All"], VisibilityTimeout=60).get("Messages", [])
            except botocore.exceptions.ClientError as error:
                if "OverLimit" not in str(error):
                    raise
                break  # the emulator has not taken note of the deletions yet
            if not got:
                break
            done = client.delete_message_batch(QueueUrl=self._url, Entries=[
                {"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]}
                for i, message in enumerate(got)])
            assert not done.get("Failed"), done["Failed"]
            for message in got:
                message["attributes"] = {name: value["StringValue"] for name, value
                                         in message.get("MessageAttributes", {}).items()}
            self.messages += got
        return self.messages
