#include "backends/nats/sink.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/checked.h"
#include "server.h"

namespace relay::nats {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = Outcome::Kind;

/// Messages that own their text.
class Messages {
 public:
  Message& add(std::string_view subject, std::string_view id, std::string_view body,
               std::string_view key = "k") {
    Message message;
    message.subject = keep(subject);
    message.id = keep(id);
    message.body = keep(body);
    message.key = keep(key);
    message.op = "insert";
    message.stream_table = "orders";
    message.content_type = "application/json";
    list_.push_back(message);
    return list_.back();
  }
  static Messages numbered(int from, int count, int keys = 1) {
    Messages messages;
    for (int n = from; n < from + count; ++n) {
      messages.add("t.orders", "p:" + std::to_string(n), "{\"n\":" + std::to_string(n) + "}",
                   "k" + std::to_string(n % keys));
    }
    return messages;
  }
  std::span<const Message> span() const { return list_; }
  std::string_view keep(std::string_view text) { return texts_.emplace_back(text); }

 private:
  std::deque<std::string> texts_;
  std::vector<Message> list_;
};

class NatsSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Server::available()) GTEST_SKIP() << "nats-server is not installed";
    serve({});
  }
  void serve(std::string config) {
    server_ = std::make_unique<Server>(std::move(config));
    server_->start();
  }
  Inspector inspector() { return Inspector(*server_); }
  Options options(std::string_view url = {}) const {
    Options options = *parse_options(config::checked("{}", sink_fields()), std::nullopt);
    options.endpoints =
        *parse_endpoints(url.empty() ? std::string("nats://" + server_->address()) : url);
    options.ack_timeout = milliseconds(1000);
    options.connect_timeout = milliseconds(2000);
    options.operation_timeout = milliseconds(2000);
    options.pipeline = "unit";
    return options;
  }
  static std::vector<Outcome> deliver(NatsSink& sink, std::span<const Message> messages,
                                      milliseconds deadline = seconds(20)) {
    return sink.deliver(messages, Deadline::after(deadline), {});
  }
  static long count(const std::vector<Outcome>& outcomes, Kind kind) {
    return std::ranges::count(outcomes, kind, &Outcome::kind);
  }
  /// As the pipeline does: again and again, from the first unknown one on.
  static void deliver_all(NatsSink& sink, std::span<const Message> messages,
                          milliseconds patience = seconds(30)) {
    const Deadline end = Deadline::after(patience);
    while (!messages.empty() && !end.passed()) {
      const auto outcomes = deliver(sink, messages);
      const auto open = std::ranges::find(outcomes, Kind::unknown, &Outcome::kind);
      messages = messages.subspan(static_cast<std::size_t>(open - outcomes.begin()));
    }
    ASSERT_TRUE(messages.empty()) << messages.size() << " messages were never delivered";
  }
  static void expect_numbered(const std::vector<Stored>& stored, int count) {
    ASSERT_EQ(stored.size(), static_cast<std::size_t>(count));
    for (int n = 0; n < count; ++n) {
      ASSERT_EQ(stored[static_cast<std::size_t>(n)].body, "{\"n\":" + std::to_string(n) + "}");
    }
  }
  static Error error_of(const Result<void>& result) {
    EXPECT_FALSE(result) << "it was expected to fail";
    return result ? Error{} : result.error();
  }

  std::unique_ptr<Server> server_;
};

TEST_F(NatsSinkTest, StoresEachMessageOnceInOrderWithIdAndHeaders) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  ASSERT_TRUE(sink.open({}));
  Messages messages;
  const std::string body = "{\"ü\": 12345678901234567890.10}";
  Message& first = messages.add("t.orders.insert", "p:7-aa:0", body);
  first.outbox_id = 7;
  const Header traceparent{"traceparent", "00-ab-cd-01"};
  first.headers = {&traceparent, 1};
  messages.add("t.orders.refresh", "p:8-aa:0", "{}").full_refresh = true;
  EXPECT_EQ(count(deliver(sink, messages.span()), Kind::delivered), 2);

  const auto stored = inspector().messages("S");
  ASSERT_EQ(stored.size(), 2u);
  EXPECT_EQ(stored[0].subject, "t.orders.insert");
  EXPECT_EQ(stored[0].body, body);
  const std::map<std::string, std::string> expected{
      {"Nats-Msg-Id", "p:7-aa:0"},  {"pgtrickle-id", "p:7-aa:0"},
      {"pgtrickle-op", "insert"},   {"pgtrickle-stream-table", "orders"},
      {"pgtrickle-outbox-id", "7"}, {"traceparent", "00-ab-cd-01"}};
  for (const auto& [name, value] : expected) EXPECT_EQ(stored[0].headers.at(name), value) << name;
  EXPECT_FALSE(stored[0].headers.contains("Pgtrickle-Full-Refresh"));
  EXPECT_EQ(stored[1].headers.at("Pgtrickle-Full-Refresh"), "true");
}

TEST_F(NatsSinkTest, KeepsTheOrderOfTenThousand) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  const auto messages = Messages::numbered(0, 10000);
  for (std::size_t at = 0; at < 10000; at += 2500) {
    EXPECT_EQ(count(deliver(sink, messages.span().subspan(at, 2500)), Kind::delivered), 2500);
  }
  expect_numbered(inspector().messages("S"), 10000);
}

TEST_F(NatsSinkTest, TellsADuplicate) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  const auto messages = Messages::numbered(0, 50);
  deliver(sink, messages.span());
  EXPECT_EQ(count(deliver(sink, messages.span()), Kind::duplicate), 50);
  EXPECT_EQ(inspector().count("S"), 50u);
}

TEST_F(NatsSinkTest, RejectsExactlyWhatCannotBeSent) {
  server_.reset();
  serve("max_payload: 4096");
  inspector().make_stream("S", "t.>", -1, 3000);
  NatsSink sink(options());
  Messages messages;
  const Header line_break{"x", "a\r\nb"};
  const Header protocol{"Nats-Expected-Last-Sequence", "99"};
  messages.add("t.a", "0", "{}");
  messages.add("t.a", "1", std::string(3900, 'x'));  // the server takes no more than 4096 in all
  messages.add("t.a", "2", std::string(3100, 'x'));  // the stream takes no more than 3000
  messages.add("t.a b", "3", "{}");
  messages.add("t.a", "4", "{}").headers = {&line_break, 1};
  messages.add("t.a", "5", "{}").headers = {&protocol, 1};  // of an old dead letter: not sent
  messages.add("t.a", "6", "{}");
  const auto outcomes = deliver(sink, messages.span());
  const std::vector<std::string> expected = {
      "", "too_large", "too_large", "illegal_subject", "bad_header", "", ""};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].empty()) {
      EXPECT_EQ(outcomes[i].kind, Kind::delivered) << i;
    } else {
      ASSERT_EQ(outcomes[i].kind, Kind::rejected) << i;
      EXPECT_EQ(outcomes[i].error->code, expected[i]) << i;
      EXPECT_EQ(outcomes[i].error->error_class, ErrorClass::rejected) << i;
    }
  }
  EXPECT_EQ(inspector().count("S"), 3u);
}

TEST_F(NatsSinkTest, TakesTheLargestBodyThatTheServerTakes) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  Messages messages;
  messages.add("t.a", "0", std::string((1 << 20) - 300, 'x'));
  messages.add("t.a", "1", "");
  EXPECT_EQ(count(deliver(sink, messages.span()), Kind::delivered), 2);
  EXPECT_EQ(inspector().messages("S")[0].body.size(), std::size_t{(1 << 20) - 300});
}

TEST_F(NatsSinkTest, ASubjectWithoutAStreamIsAMistakeInTheConfigurationNotPoison) {
  NatsSink sink(options());
  const auto messages = Messages::numbered(0, 3);
  const auto outcomes = deliver(sink, messages.span());
  ASSERT_EQ(count(outcomes, Kind::unknown), 3);
  EXPECT_EQ(outcomes[0].error->code, "no_stream");
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::misconfigured);
  EXPECT_FALSE(outcomes[0].error->remedy.empty());
  inspector().make_stream("S", "t.>");
  EXPECT_EQ(count(deliver(sink, messages.span()), Kind::delivered), 3);
}

TEST_F(NatsSinkTest, ChecksTheStreamThatIsNamed) {
  Options named = options();
  named.stream = "absent";
  NatsSink sink(named);
  const Error error = error_of(sink.open({}));
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
  EXPECT_EQ(error.code, "no_stream");
}

TEST_F(NatsSinkTest, StoresNothingInAnotherStreamThanTheOneThatIsNamed) {
  inspector().make_stream("S", "s.>");
  inspector().make_stream("other", "t.>");
  Options named = options();
  named.stream = "S";
  NatsSink sink(named);
  ASSERT_TRUE(sink.open({}));
  const auto outcomes = deliver(sink, Messages::numbered(0, 1).span());
  ASSERT_EQ(outcomes[0].kind, Kind::unknown);
  EXPECT_EQ(outcomes[0].error->code, "other_stream");
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::misconfigured);
  EXPECT_EQ(inspector().count("other"), 0u);
}

TEST_F(NatsSinkTest, MakesTheStreamWhereItIsTold) {
  Options making = options();
  making.stream = "made";
  making.create_stream = true;
  making.stream_subjects = {"t.>"};
  for (int run = 0; run < 2; ++run) {
    NatsSink sink(making);
    ASSERT_TRUE(sink.open({}));
    EXPECT_EQ(count(deliver(sink, Messages::numbered(run, 1).span()), Kind::delivered), 1);
  }
  EXPECT_EQ(inspector().count("made"), 2u);
}

TEST_F(NatsSinkTest, LosesAndDoublesNothingWhenTheServerIsKilled) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  const auto messages = Messages::numbered(0, 6000);
  auto delivery = std::async(std::launch::async, [&] { deliver_all(sink, messages.span()); });
  for (const std::uint64_t level : {500u, 3000u}) {
    ASSERT_TRUE(eventually([&] { return inspector().count("S") >= level; }));
    server_->kill9();
    server_->start();
  }
  delivery.get();
  expect_numbered(inspector().messages("S"), 6000);
}

TEST_F(NatsSinkTest, AFrozenServerMakesUnknownOutcomesWithinTheAckTimeoutAndNoDoubles) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  ASSERT_EQ(count(deliver(sink, Messages::numbered(0, 1).span()), Kind::delivered), 1);
  // More than the socket's buffers take: a library that writes by itself would hang here.
  Messages messages;
  for (int n = 1; n <= 200; ++n) {
    messages.add("t.orders", "p:" + std::to_string(n), std::string(100000, 'x'));
  }
  server_->freeze();
  const auto begun = SteadyClock::now();
  const auto outcomes = deliver(sink, messages.span());
  const auto took = SteadyClock::now() - begun;
  EXPECT_EQ(count(outcomes, Kind::unknown), 200);
  EXPECT_EQ(outcomes[0].error->code, "ack_timeout");
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::transient);
  EXPECT_LT(took, seconds(4));
  server_->thaw();
  deliver_all(sink, messages.span());
  EXPECT_EQ(inspector().count("S"), 201u);
}

TEST_F(NatsSinkTest, NeverOutlastsItsDeadline) {
  inspector().make_stream("S", "t.>");
  Options patient = options();
  patient.ack_timeout = seconds(60);
  NatsSink sink(patient);
  deliver(sink, Messages::numbered(0, 1).span());
  server_->freeze();
  const auto begun = SteadyClock::now();
  const auto outcomes = deliver(sink, Messages::numbered(1, 100).span(), milliseconds(200));
  EXPECT_LT(SteadyClock::now() - begun, seconds(10));
  EXPECT_EQ(count(outcomes, Kind::unknown), 100);
  server_->thaw();
}

TEST_F(NatsSinkTest, AStopEndsADeliveryAtOnce) {
  inspector().make_stream("S", "t.>");
  Options patient = options();
  patient.ack_timeout = seconds(60);
  NatsSink sink(patient);
  deliver(sink, Messages::numbered(0, 1).span());
  server_->freeze();
  const auto messages = Messages::numbered(1, 100);
  std::stop_source stop;
  auto delivery = std::async(std::launch::async, [&] {
    return sink.deliver(messages.span(), Deadline::after(seconds(60)), stop.get_token());
  });
  EXPECT_EQ(delivery.wait_for(milliseconds(100)), std::future_status::timeout);
  stop.request_stop();
  ASSERT_EQ(delivery.wait_for(seconds(5)), std::future_status::ready);
  const auto outcomes = delivery.get();
  server_->thaw();
  ASSERT_EQ(outcomes[0].kind, Kind::unknown);
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::cancelled);
}

TEST_F(NatsSinkTest, NoticesADeadConnectionBetweenDeliveries) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options());
  deliver_all(sink, Messages::numbered(0, 10).span());
  server_->stop();
  const auto outcomes = deliver(sink, Messages::numbered(10, 10).span());
  EXPECT_EQ(count(outcomes, Kind::unknown), 10);
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::transient);
  server_->start();
  deliver_all(sink, Messages::numbered(10, 10).span());
  expect_numbered(inspector().messages("S"), 20);
}

TEST_F(NatsSinkTest, AFullStreamLeavesNoGapInAKey) {
  inspector().make_stream("S", "t.>", 20);
  NatsSink sink(options());
  const auto messages = Messages::numbered(0, 100, 4);
  const auto outcomes = deliver(sink, messages.span());
  EXPECT_EQ(inspector().count("S"), 20u);
  for (std::size_t key = 0; key < 4; ++key) {
    bool gap = false;
    for (std::size_t i = key; i < 100; i += 4) {
      EXPECT_FALSE(gap && outcomes[i].kind == Kind::delivered) << "message " << i << " overtook";
      gap |= outcomes[i].kind == Kind::unknown;
    }
  }
  const auto full = std::ranges::find(outcomes, Kind::unknown, &Outcome::kind);
  ASSERT_NE(full, outcomes.end());
  EXPECT_EQ(full->error->code, "stream_full");
  EXPECT_EQ(full->error->error_class, ErrorClass::transient);
}

TEST_F(NatsSinkTest, TriesTheOtherServersOfTheList) {
  inspector().make_stream("S", "t.>");
  NatsSink sink(options("nats://127.0.0.1:1,nats://" + server_->address()));
  ASSERT_TRUE(sink.open({}));
  EXPECT_EQ(count(deliver(sink, Messages::numbered(0, 1).span()), Kind::delivered), 1);
}

TEST_F(NatsSinkTest, AServerThatIsAwayIsATransientErrorThatNamesIt) {
  NatsSink sink(options("nats://127.0.0.1:1"));
  const Error refused = error_of(sink.open({}));
  EXPECT_EQ(refused.error_class, ErrorClass::transient);
  EXPECT_NE(refused.message.find("127.0.0.1:1"), std::string::npos);
  NatsSink nameless(options("nats://no-such-host.invalid:4222"));
  EXPECT_EQ(error_of(nameless.open({})).error_class, ErrorClass::transient);
}

TEST_F(NatsSinkTest, RefusedCredentialsAreAConfigurationErrorThatShowsNoSecret) {
  server_.reset();
  serve("authorization { user: relay, password: right }");
  for (const std::string& url :
       {"nats://relay:s3cret@" + server_->address(), "nats://s3cret@" + server_->address(),
        "nats://" + server_->address()}) {
    NatsSink sink(options(url));
    const Error error = error_of(sink.open({}));
    EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
    EXPECT_EQ(error.code, "authentication");
    EXPECT_FALSE(error.remedy.empty());
    EXPECT_EQ(error.message.find("s3cret"), std::string::npos);
  }
  NatsSink sink(options("nats://relay:right@" + server_->address()));
  EXPECT_TRUE(sink.open({}));
}

TEST_F(NatsSinkTest, AMissingPermissionIsSaidAtOnce) {
  server_.reset();
  serve(
      "authorization { users: [ { user: all, password: p }, { user: relay, password: p, "
      "permissions: "
      "{ publish: [\"$JS.API.>\"], subscribe: \">\" } } ] }");
  Inspector("nats://all:p@" + server_->address()).make_stream("S", "t.>");
  Options limited = options("nats://relay:p@" + server_->address());
  limited.ack_timeout = seconds(60);
  NatsSink sink(limited);
  const auto outcomes = deliver(sink, Messages::numbered(0, 1).span());
  ASSERT_EQ(outcomes[0].kind, Kind::unknown);
  EXPECT_EQ(outcomes[0].error->code, "not_permitted");
  EXPECT_EQ(outcomes[0].error->error_class, ErrorClass::misconfigured);
}

class NatsTlsTest : public NatsSinkTest {
 protected:
  void SetUp() override {
    if (!Server::available()) GTEST_SKIP() << "nats-server is not installed";
    server_ = std::make_unique<Server>(
        "tls { cert_file: \"%DIR%/server.pem\", key_file: \"%DIR%/server.key\", timeout: 5 }");
    authority("ca");
    authority("other");
    certificate("server", "DNS:localhost,IP:127.0.0.1");
    server_->start();
  }
  void run(const std::string& arguments) {
    const std::string command =
        "cd " + server_->directory().string() + " && openssl " + arguments + " >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  void authority(const std::string& name) {
    run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" + name +
        " -keyout " + name + ".key -out " + name + ".pem");
  }
  void certificate(const std::string& name, const std::string& names) {
    run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " +
        name + ".key -out " + name + ".csr");
    std::ofstream(server_->directory() / "ext") << "subjectAltName=" << names << "\n";
    run("x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out " +
        name + ".pem -extfile ext");
  }
  Options secured(const std::string& host, const std::string& ca) {
    Options secured = options("tls://" + host + ":" + std::to_string(server_->port()));
    if (!ca.empty()) secured.tls_ca = (server_->directory() / (ca + ".pem")).string();
    return secured;
  }
};

TEST_F(NatsTlsTest, ServesATrustedServer) {
  for (const char* host : {"localhost", "127.0.0.1"}) {
    NatsSink sink(secured(host, "ca"));
    EXPECT_TRUE(sink.open({})) << host;
    const auto outcomes = deliver(sink, Messages::numbered(0, 1).span());
    EXPECT_EQ(outcomes[0].error->code, "no_stream");
  }
}

TEST_F(NatsTlsTest, AnAuthorityThatIsNotTrustedIsAConfigurationError) {
  for (const char* ca : {"other", ""}) {
    NatsSink sink(secured("localhost", ca));
    const Error error = error_of(sink.open({}));
    EXPECT_EQ(error.error_class, ErrorClass::misconfigured) << error.message;
    EXPECT_EQ(error.code, "tls_verification") << error.message;
  }
}

TEST_F(NatsTlsTest, ACertificateForAnotherNameIsAConfigurationError) {
  server_->stop();
  certificate("server", "DNS:elsewhere.example,IP:127.0.0.9");
  server_->start();
  for (const char* host : {"localhost", "127.0.0.1"}) {
    NatsSink sink(secured(host, "ca"));
    const Error error = error_of(sink.open({}));
    EXPECT_EQ(error.code, "tls_verification") << host << ": " << error.message;
  }
}

/// Asks for TLS, and says nothing more.
class MuteTlsServer {
 public:
  MuteTlsServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size);
    ::listen(listener_, 8);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      constexpr std::string_view kGreeting =
          "INFO {\"server_id\":\"mute\",\"version\":\"2.9.0\",\"tls_required\":true,"
          "\"max_payload\":1048576,\"headers\":true}\r\n";
      peer_ = ::accept(listener_, nullptr, nullptr);
      ::send(peer_, kGreeting.data(), kGreeting.size(), MSG_NOSIGNAL);
    });
  }
  ~MuteTlsServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(peer_);
    ::close(listener_);
  }

  int port = 0;

 private:
  int listener_;
  int peer_ = -1;
  std::thread thread_;
};

TEST(NatsTls, AHandshakeWithoutAnAnswerEndsWithTheTimeToConnect) {
  const MuteTlsServer server;
  Options options = *parse_options(config::checked("{}", sink_fields()), std::nullopt);
  options.endpoints = *parse_endpoints("tls://127.0.0.1:" + std::to_string(server.port));
  options.connect_timeout = milliseconds(300);
  options.pipeline = "unit";
  auto opened = std::async(std::launch::async, [&] { return NatsSink(options).open({}); });
  if (opened.wait_for(seconds(15)) != std::future_status::ready) std::abort();  // no join ends
  const auto result = opened.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().error_class, ErrorClass::transient);
  EXPECT_EQ(result.error().code, "unreachable") << result.error().message;
}

TEST_F(NatsTlsTest, VerificationCanBeTurnedOff) {
  Options unverified = secured("localhost", "other");
  unverified.tls_verify = false;
  NatsSink sink(unverified);
  EXPECT_TRUE(sink.open({}));
}

TEST_F(NatsTlsTest, AServerThatAsksForTlsItselfIsVerifiedToo) {
  Options plain = options("nats://localhost:" + std::to_string(server_->port()));
  NatsSink untrusted(plain);
  EXPECT_EQ(error_of(untrusted.open({})).code, "tls_verification");
  plain.tls_ca = (server_->directory() / "ca.pem").string();
  EXPECT_TRUE(NatsSink(plain).open({}));
  server_->stop();
  certificate("server", "DNS:elsewhere.example");
  server_->start();
  EXPECT_EQ(error_of(NatsSink(plain).open({})).code, "tls_verification");
}

TEST_F(NatsTlsTest, AServerWithoutTlsIsAConfigurationErrorWhereTlsIsWanted) {
  Server plain;
  plain.start();
  NatsSink sink(options("tls://" + plain.address()));
  const Error error = error_of(sink.open({}));
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured) << error.message;
  EXPECT_EQ(error.code, "tls_not_offered");
}

TEST_F(NatsTlsTest, AFileThatIsNotThereIsAConfigurationError) {
  NatsSink sink(secured("localhost", "absent"));
  EXPECT_EQ(error_of(sink.open({})).code, "unreadable_file");
}

TEST_F(NatsTlsTest, CarriesMuchMoreThanOneRecord) {
  Options secure = secured("localhost", "ca");
  secure.stream = "S";
  secure.create_stream = true;
  secure.stream_subjects = {"t.>"};
  NatsSink sink(secure);
  EXPECT_EQ(count(deliver(sink, Messages::numbered(0, 5000).span()), Kind::delivered), 5000);
}

}  // namespace
}  // namespace relay::nats
