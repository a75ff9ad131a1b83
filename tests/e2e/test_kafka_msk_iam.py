"""Amazon MSK's access by IAM: sink and source against a front that checks each token by itself."""

import pytest

from support import aws_credentials
from support.bridges import set_bridge
from support.fixtures import need
from support.kafka_fixtures import fresh_topic
from support.kafka_server import KafkaServer
from support.msk_front import MskFront, Refused, Verifier
from support.pipelines import SLOW_FACTOR, insert_rows, set_outbox
from support.processes import temporary_directory
from support.relay import Relay
from support.tls import Authority
from support.waiting import eventually
from support.writers import Writer, wait_trouble

REGION = "eu-west-1"
SECRET, SESSION = "s3cret-key-of-the-test/+=", "session+token/of=the test"
KEYS = {"access_key_id": "AKIAOPTION", "secret_access_key": SECRET, "session_token": SESSION}
NO_CHAIN = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true"}


class Msk:
    """One broker behind a front, and the service that hands out temporary keys."""

    def __init__(self):
        self.server = KafkaServer()
        need(self.server.real, f"a real Kafka ({self.server.why_mock})")
        self.service = aws_credentials.MetadataService()
        self.authority = Authority()
        self.front = MskFront(self.server.port, Verifier(REGION, self.secret_of),
                              *self.authority.certificate("server"))
        self.server.advertise(self.front.port)
        self.server.start()

    def secret_of(self, key):
        if key == "AKIAOPTION":
            return SECRET, SESSION, None
        if key in self.service.granted:
            return "granted", "granted-token", self.service.granted[key]
        raise Refused("unknown key")

    def client(self, **more):
        return {"type": "kafka", "brokers": f"127.0.0.1:{self.front.port}",
                "sasl_mechanism": "aws_msk_iam", "region": REGION, "tls_ca": self.authority.ca,
                "connect_timeout": "5s", **more}

    def close(self):
        self.front.close()
        self.server.stop()
        self.service.close()


@pytest.fixture(scope="module")
def shared_msk():
    msk = Msk()
    yield msk
    msk.close()


@pytest.fixture
def msk(shared_msk):
    front, service = shared_msk.front, shared_msk.service
    front.answer, service.status, service.lifetime = "refuse", 200, None
    front.keys.clear(), front.refused.clear(), front.tokens.clear()
    return shared_msk


def set_sink(db, msk, topic, name="p", **more):
    set_outbox(db, name, {"stream_table": "orders", "message": "row",
                          "sink": msk.client(topic=topic, **more)})


def no_secret_is_in(log, msk):
    for secret in (SECRET, SESSION, "granted-token", *msk.front.tokens):
        assert secret not in log


def test_a_sink_and_a_source_sign_in_with_keys_of_the_configuration(db, msk, relay, orders,
                                                                    tmp_path):
    topic = fresh_topic(msk.server)
    set_sink(db, msk, topic, **KEYS)
    set_bridge(db, "back", msk.client(topic=topic, group_id=topic, **KEYS), tmp_path / "lines")
    relay.argv += ["--log-level", "debug"]
    with relay, msk.server.reader(topic) as reader:
        insert_rows(db, "orders", 1, 5)
        eventually(lambda: reader.count() == 5, 30 * SLOW_FACTOR)
        eventually(lambda: (tmp_path / "lines").read_text().count("\n") == 5, 30 * SLOW_FACTOR)
        no_secret_is_in(relay.log(100_000), msk)
    assert set(msk.front.keys) == {"AKIAOPTION"} and not msk.front.refused


def test_tokens_are_renewed_before_they_end_while_rows_flow(db, msk, relay_bin, orders):
    topic = fresh_topic(msk.server)
    msk.service.lifetime = 8
    env, _ = aws_credentials.environment("container", msk.service, temporary_directory("aws"))
    set_sink(db, msk, topic)
    with Relay(db.relay_dsn, env=env) as relay, msk.server.reader(topic) as reader:
        with Writer(db) as writer:
            eventually(lambda: len(set(msk.front.keys)) >= 4, 90 * SLOW_FACTOR, interval=0.1)
            count = writer.committed
        eventually(lambda: reader.count() >= count, 60 * SLOW_FACTOR)
        assert len({record.key for record in reader.messages()}) >= count
        no_secret_is_in(relay.log(100_000), msk)
    assert not msk.front.refused, "an old token was shown"


@pytest.mark.parametrize("answer, wrong, why, pattern", [
    ("refuse", {"secret_access_key": "an0ther-secret-key"}, "wrong signature", "Access denied"),
    ("refuse", {"region": "us-east-2"}, "wrong place", "Access denied"),
    ("refuse", {"session_token": "an0ther-session"}, "wrong session token", "Access denied"),
    ("close", {"secret_access_key": "an0ther-secret-key"}, "wrong signature", "SASL authentication error"),
])
def test_a_refused_token_is_told_with_the_remedy(db, msk, relay, orders, answer, wrong, why,
                                                 pattern):
    msk.front.answer = answer
    set_sink(db, msk, fresh_topic(msk.server), **(KEYS | wrong))
    with relay:
        insert_rows(db, "orders", 1)
        entry = wait_trouble(relay, db, "p", pattern, remedy="kafka-cluster:Connect")
        if answer == "refuse":
            assert (entry["state"], entry["error_code"]) == ("misconfigured", "authentication")
        assert set(msk.front.refused) == {why}
        no_secret_is_in(relay.log(100_000), msk)
        for value in wrong.values():
            assert value == "us-east-2" or value not in relay.log(100_000)


def test_a_credential_service_that_is_down_is_waited_for(db, msk, relay_bin, orders):
    topic = fresh_topic(msk.server)
    msk.service.status = 503
    env, _ = aws_credentials.environment("instance", msk.service, temporary_directory("aws"))
    set_sink(db, msk, topic)
    with Relay(db.relay_dsn, env=env) as relay, msk.server.reader(topic) as reader:
        insert_rows(db, "orders", 1)
        entry = wait_trouble(relay, db, "p", "metadata service answered 503")
        assert entry["error_class"] == "transient"
        msk.service.status = 200
        eventually(lambda: reader.count() == 1, 60 * SLOW_FACTOR)


def test_no_credentials_and_no_region_are_told(db, msk, relay_bin, orders):
    topic = fresh_topic(msk.server)
    set_sink(db, msk, topic, name="no-keys")
    set_sink(db, msk, topic, name="no-region", region="", **KEYS)
    with Relay(db.relay_dsn, env=NO_CHAIN) as relay:
        insert_rows(db, "orders", 1)
        for name, pattern in (("no-keys", "there are no AWS credentials"),
                              ("no-region", "region of the cluster is not known")):
            entry = wait_trouble(relay, db, name, pattern)
            assert entry["state"] == "misconfigured"


@pytest.mark.parametrize("wrong, pattern", [
    ({"sasl_username": "u"}, "sasl_username is set, but sasl_mechanism is AWS_MSK_IAM"),
    ({"security_protocol": "SASL_PLAINTEXT"}, "but security_protocol is SASL_PLAINTEXT"),
    ({"sasl_mechanism": "PLAIN"}, "but sasl_mechanism is not AWS_MSK_IAM"),
    ({"access_key_id": "AKIA"}, "belong together"),
])
def test_contradictions_are_told(db, msk, relay, orders, wrong, pattern):
    set_sink(db, msk, "t", **wrong)
    with relay:
        insert_rows(db, "orders", 1)
        wait_trouble(relay, db, "p", pattern)
        assert relay.pipeline("p")["state"] == "misconfigured"
