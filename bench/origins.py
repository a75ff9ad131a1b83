"""Where the sources of scripts/bench read: brokers that a limit program filled, the outbox itself, and a
file."""

import os
import subprocess

import destinations
from support.processes import temporary_directory


class Origin:
    """What is read. A place is a stream, topic, key, queue or file of it, filled anew for each run."""

    name = ""
    what = ""

    def __init__(self, bench, backlog, outbox):
        """`backlog` is the database with the rows that are sent, in `outbox`."""
        self.bench, self.backlog, self.outbox = bench, backlog, outbox

    def fill(self, place):
        """Makes the place, with as many messages as the run has rows."""

    def source(self, place):
        """The source of a pipeline."""
        raise NotImplementedError

    def limit(self, place, inbox):
        """The command line of the limit program that writes into the table of that inbox."""
        raise NotImplementedError

    def forget(self, place):
        """Gives the memory or disk of a place back."""

    def stop(self):
        pass


class FromBroker(Origin):
    """A broker, filled by the limit program of its drain."""

    kind = destinations.Destination

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._broker = self.kind(self.bench.build / "bench")

    def fill(self, place):
        self._broker.prepare(place)
        subprocess.run([self.bench.program(f"limit_{self.kind.name}"), self.backlog.dsn,
                        self.outbox, str(self.bench.BATCH), *map(str, self._broker.limit(place))],
                       check=True)
        assert self._broker.count(place) == self.bench.options.rows

    def source(self, place):
        return self._broker.source(place)

    def limit(self, place, inbox):
        return [self.bench.program(f"limit_from_{self.kind.name}"), inbox.dsn, f"inbox_{place}",
                self.bench.BATCH, self.bench.options.rows, *self._broker.limit_source(place)]

    def forget(self, place):
        self._broker.forget(place)

    def stop(self):
        self._broker.stop()


def from_broker(broker):
    return type(f"From{broker.__name__}", (FromBroker,),
                {"name": broker.name, "what": broker.what, "kind": broker})


class FromOutbox(Origin):
    name, what = "pg-outbox", "an outbox in another database of the same server"

    def source(self, place):
        return {"type": "pg-outbox", "url": self.backlog.dsn, "outbox": "orders"}

    def limit(self, place, inbox):
        return [self.bench.program("limit_inbox"), self.backlog.dsn, self.outbox, self.bench.BATCH,
                inbox.dsn, f"inbox_{place}", place]


class FromFile(Origin):
    name, what = "file", "a file of JSON lines, its position kept"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._directory = temporary_directory("bench-file")

    def _path(self, place):
        return os.path.join(self._directory, f"{place}.jsonl")

    def fill(self, place):
        text = "x" * self.bench.PAYLOAD
        with open(self._path(place), "w") as lines:
            for number in range(self.bench.options.rows):
                lines.write(f'{{"number": {number}, "note": "{text}"}}\n')

    def source(self, place):
        return {"type": "file", "path": self._path(place)}

    def limit(self, place, inbox):
        return [self.bench.program("limit_from_file"), inbox.dsn, f"inbox_{place}",
                self.bench.BATCH, self.bench.options.rows, self._path(place)]

    def forget(self, place):
        os.unlink(self._path(place))


ALL = (*map(from_broker, (destinations.Nats, destinations.Kafka, destinations.Redis,
                          destinations.RabbitMq, destinations.Sqs)), FromOutbox, FromFile)
