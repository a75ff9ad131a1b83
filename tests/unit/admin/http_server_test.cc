#include "admin/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <rapidcheck.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "admin/raw_client.h"
#include "core/deadline.h"

namespace relay::admin {
namespace {

using namespace std::chrono_literals;

std::string status_of(const std::string& response) {
  return response.substr(0, response.find("\r\n"));
}

HttpResponse echo(const HttpRequest& request) {
  HttpResponse response;
  response.body = request.method + " " + request.path;
  for (const auto& [name, value] : request.query) response.body += " " + name + "=" + value;
  if (!request.body.empty()) response.body += " [" + request.body + "]";
  return response;
}

std::unique_ptr<HttpServer> serve(HttpService service, HttpLimits limits = {}) {
  auto server = HttpServer::start("127.0.0.1:0", std::move(service), limits);
  EXPECT_TRUE(server) << server.error().message;
  return server ? std::move(*server) : nullptr;
}

std::unique_ptr<HttpServer> serve(Handler handler = echo, HttpLimits limits = {}) {
  return serve(HttpService{.handler = std::move(handler)}, limits);
}

// The whole answer to one request, after which the client says no more.
std::string answer_to(const HttpServer& server, std::string_view bytes) {
  Client client(server.port());
  client.send(bytes);
  client.end_sending();
  return client.read_all();
}

TEST(HttpServer, AnswersARequest) {
  const auto server = serve();
  Client client(server->port());
  client.send("GET /health?verbose=1&name=a%20b+c&flag HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string response = client.read_response();
  EXPECT_EQ(status_of(response), "HTTP/1.1 200 OK");
  EXPECT_NE(response.find("Content-Type: text/plain; charset=utf-8\r\n"), std::string::npos);
  EXPECT_TRUE(response.ends_with("\r\n\r\nGET /health flag= name=a b c verbose=1")) << response;
}

TEST(HttpServer, HandsOverHeadersAndBody) {
  const auto server = serve([](const HttpRequest& request) {
    HttpResponse response;
    response.status = 202;
    response.content_type = "application/json";
    response.headers = {{"X-Test", "yes"}};
    response.body = request.target + " " + request.headers.at("authorization") + request.body;
    return response;
  });
  const std::string response = answer_to(*server,
                                         "POST /a%2Fb HTTP/1.1\r\nHost: x\r\nAUTHORIZATION: t\r\n"
                                         "Content-Length: 3\r\n\r\nabc");
  EXPECT_EQ(status_of(response), "HTTP/1.1 202 Accepted");
  EXPECT_NE(response.find("X-Test: yes\r\n"), std::string::npos);
  EXPECT_TRUE(response.ends_with("/a%2Fb tabc")) << response;
}

TEST(HttpServer, ReadsAChunkedBody) {
  const auto server = serve();
  const std::string response = answer_to(*server,
                                         "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                                         "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_TRUE(response.ends_with("POST / [abcde]")) << response;
}

TEST(HttpServer, KeepsAConnectionAlive) {
  const auto server = serve();
  Client client(server->port());
  for (int i = 0; i < 100; ++i) {
    client.send("GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(client.read_response().ends_with("GET /" + std::to_string(i)));
  }
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  const auto server = serve();
  Client client(server->port());
  std::string all;
  for (int i = 0; i < 20; ++i) {
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxy";
  }
  client.send(all);
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(client.read_response().ends_with("POST /" + std::to_string(i) + " [xy]"));
  }
}

TEST(HttpServer, EndsTheConnectionWhenTheClientAsksForIt) {
  const auto server = serve();
  Client client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.read_response().ends_with("GET /"));
  EXPECT_TRUE(client.is_ended());
  Client old(server->port());
  old.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(old.is_ended());
}

TEST(HttpServer, HeadHasTheHeaderOfGetAndNoBody) {
  const auto server = serve();
  Client client(server->port());
  client.send("HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string head = client.read_response(true);
  EXPECT_EQ(status_of(head), "HTTP/1.1 200 OK");
  EXPECT_NE(head.find("Content-Length: 9\r\n"), std::string::npos) << head;
  EXPECT_TRUE(client.read_response().ends_with("GET /d"));
}

TEST(HttpServer, AnEmptyBodyIsAnswered) {
  const auto server = serve([](const HttpRequest&) { return HttpResponse{}; });
  Client client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_response().find("Content-Length: 0\r\n"), std::string::npos);
}

TEST(HttpServer, MalformedInputIsAnsweredWith400) {
  const auto server = serve();
  for (const char* bytes :
       {"nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
        "GET / HTTP/1.1\r\nNo colon\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab"}) {
    EXPECT_EQ(status_of(answer_to(*server, bytes)), "HTTP/1.1 400 Bad Request") << bytes;
  }
  EXPECT_TRUE(answer_to(*server, "GET /ok HTTP/1.1\r\n\r\n").ends_with("GET /ok"));
}

TEST(HttpServer, ABodyBeyondTheLimitIsRefusedAndTheClientReadsWhy) {
  const auto server = serve();
  const std::size_t size = 4 << 20;
  Client client(server->port());
  client.send("POST / HTTP/1.1\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n");
  client.send(std::string(size, 'x'));
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 413 Payload Too Large");
  client.end_sending();
  EXPECT_TRUE(client.is_ended());

  std::string chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 33; ++i) chunked += "8000\r\n" + std::string(0x8000, 'x') + "\r\n";
  EXPECT_EQ(status_of(answer_to(*server, chunked + "0\r\n\r\n")), "HTTP/1.1 413 Payload Too Large");
}

TEST(HttpServer, ABodyOfTheLimitIsTaken) {
  const auto server = serve([](const HttpRequest& request) {
    HttpResponse response;
    response.body = std::to_string(request.body.size());
    return response;
  });
  const std::string body(16384, 'x');
  EXPECT_TRUE(answer_to(*server, "POST / HTTP/1.1\r\nContent-Length: 16384\r\n\r\n" + body)
                  .ends_with("\r\n\r\n16384"));
}

TEST(HttpServer, AHeaderBeyondTheLimitIsRefused) {
  const auto server = serve();
  const std::string response =
      answer_to(*server, "GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n");
  EXPECT_EQ(status_of(response), "HTTP/1.1 431 Request Header Fields Too Large");
}

TEST(HttpServer, LetsAClientContinueThatAsksFirst) {
  const auto server = serve();
  Client client(server->port());
  client.send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_response(true), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ab");
  EXPECT_TRUE(client.read_response().ends_with("POST / [ab]"));
}

TEST(HttpServer, AnExceptionOfTheHandlerBecomesStatus500) {
  testing::internal::CaptureStderr();
  const auto server = serve([](const HttpRequest& request) -> HttpResponse {
    if (request.path == "/ok") return HttpResponse{};
    throw std::runtime_error("broken");
  });
  Client client(server->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 500 Internal Server Error");
  client.send("GET /ok HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(client.read_response()), "HTTP/1.1 200 OK");
  EXPECT_NE(testing::internal::GetCapturedStderr().find("http: GET /: broken"), std::string::npos);
}

TEST(HttpServer, ASlowRequestIsEndedAndASlowClientDoesNotHoldUpOthers) {
  HttpLimits limits;
  limits.request = 200ms;
  const auto server = serve(echo, limits);
  Client slow(server->port());
  slow.send("GET / HTTP/1.1\r\nHo");
  Client other(server->port());
  other.send("GET /other HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(other.read_response().ends_with("GET /other"));
  EXPECT_TRUE(slow.is_ended());
}

TEST(HttpServer, AnIdleConnectionIsEndedAfterItsTime) {
  HttpLimits limits;
  limits.idle = 200ms;
  const auto server = serve(echo, limits);
  Client silent(server->port());
  Client used(server->port());
  used.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(used.read_response().ends_with("GET /"));
  EXPECT_TRUE(silent.is_ended());
  EXPECT_TRUE(used.is_ended());
}

bool is_answered(Client& client, std::string_view path = "/") {
  return client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n") &&
         status_of(client.read_response()) == "HTTP/1.1 200 OK";
}

TEST(HttpServer, WhereThereAreTooManyConnectionsTheOneThatIsSilentLongestIsClosed) {
  HttpLimits limits;
  limits.connections = 3;
  const auto server = serve(echo, limits);
  Client first(server->port());
  Client second(server->port());
  Client third(server->port());
  EXPECT_TRUE(is_answered(first));
  EXPECT_TRUE(is_answered(second));
  EXPECT_TRUE(is_answered(third));
  EXPECT_TRUE(is_answered(first));  // so the second one is silent longest
  Client fourth(server->port());
  EXPECT_TRUE(is_answered(fourth));
  EXPECT_TRUE(second.is_ended());
  EXPECT_TRUE(is_answered(first));
  EXPECT_TRUE(is_answered(third));
}

TEST(HttpServer, AnyNumberOfSilentConnectionsLeavesRoomForANewOne) {
  HttpLimits limits;
  limits.connections = 8;
  const auto server = serve(echo, limits);
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 200; ++i) {
    silent.push_back(std::make_unique<Client>(server->port()));
    if (i % 2 == 0) silent.back()->send("GET / HT");
  }
  Client client(server->port());
  EXPECT_TRUE(is_answered(client));
  EXPECT_TRUE(silent.front()->is_ended());
}

TEST(HttpServer, AClientThatDoesNotTakeItsAnswersIsClosedWhereTheyAreTooLarge) {
  HttpLimits limits;
  limits.unread_bytes = 2u << 20;
  limits.sending = 60s;
  const auto server = serve(
      [](const HttpRequest& request) {
        HttpResponse response;
        if (request.path == "/large") response.body.assign(1u << 20, 'x');
        return response;
      },
      limits);
  std::vector<std::unique_ptr<Client>> deaf;
  for (int i = 0; i < 4; ++i) {
    deaf.push_back(std::make_unique<Client>(server->port()));
    deaf.back()->send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    Client other(server->port());
    EXPECT_TRUE(is_answered(other));
  }
  // The first two answers are cut short, and the last two still come whole.
  EXPECT_LT(deaf[0]->read_all().size(), 1u << 20);
  EXPECT_LT(deaf[1]->read_all().size(), 1u << 20);
  EXPECT_GT(deaf[2]->read_response().size(), 1u << 20);
  EXPECT_GT(deaf[3]->read_response().size(), 1u << 20);
}

// Takes every descriptor that the process may still open.
class Exhaustion {
 public:
  Exhaustion() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit few = before_;
    few.rlim_cur = 256;
    ::setrlimit(RLIMIT_NOFILE, &few);
    int one = -1;
    while ((one = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) taken_.push_back(one);
  }
  ~Exhaustion() {
    for (const int one : taken_) ::close(one);
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }
  Exhaustion(const Exhaustion&) = delete;
  Exhaustion& operator=(const Exhaustion&) = delete;

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

TEST(HttpServer, AnswersNewConnectionsWhileTheProcessHasNoDescriptorLeft) {
  const auto server = serve();
  // The clients' own descriptors are taken before there are none.
  std::vector<int> sockets;
  for (int i = 0; i < 60; ++i) sockets.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  {
    const Exhaustion exhaustion;
    ASSERT_EQ(::open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
    for (const int one : sockets) {  // all stay open: more than the reserve holds
      Client client(server->port(), one);
      EXPECT_TRUE(is_answered(client));
      client.release();
    }
  }
  for (const int one : sockets) ::close(one);
}

// A handler that waits until it is let go.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool entered = false;
  bool open = false;

  void pass() {
    std::unique_lock lock(mutex);
    entered = true;
    changed.notify_all();
    changed.wait(lock, [&] { return open; });
  }
  bool wait_for_entry() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 10s, [&] { return entered; });
  }
  void let_go() {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
};

TEST(HttpServer, ASlowHandlerDoesNotKeepConnectionsFromBeingServed) {
  Gate gate;
  const auto server = serve([&](const HttpRequest&) {
    gate.pass();
    return HttpResponse{};
  });
  Client waiting(server->port());
  waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(gate.wait_for_entry());
  EXPECT_EQ(status_of(answer_to(*server, "nonsense\r\n\r\n")), "HTTP/1.1 400 Bad Request");
  gate.let_go();
  EXPECT_EQ(status_of(waiting.read_response()), "HTTP/1.1 200 OK");
}

// "/slow..." is answered in lane 0 once the gate is open, "/now" by the server's thread, and all
// else in lane 1.
HttpService service_with_a_slow_lane(Gate& gate, Lane slow) {
  HttpService service;
  service.handler = [&gate](const HttpRequest& request) {
    if (request.path.starts_with("/slow")) gate.pass();
    return echo(request);
  };
  service.lanes = {slow, Lane{}};
  service.lane_of = [](const HttpRequest& request) -> std::optional<std::size_t> {
    if (request.path == "/now") return std::nullopt;
    return request.path.starts_with("/slow") ? 0 : 1;
  };
  return service;
}

void ask(Client& client, std::string_view path) {
  client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
}

TEST(HttpServer, ALaneThatHangsHoldsUpNoOther) {
  Gate gate;
  const auto server = serve(service_with_a_slow_lane(gate, {.workers = 2, .waiting = 4}));
  std::vector<std::unique_ptr<Client>> waiting;
  for (int i = 0; i < 6; ++i) {
    waiting.push_back(std::make_unique<Client>(server->port()));
    ask(*waiting.back(), "/slow");
  }
  ASSERT_TRUE(gate.wait_for_entry());
  Client client(server->port());
  EXPECT_TRUE(is_answered(client, "/now"));
  EXPECT_TRUE(is_answered(client, "/other"));
  gate.let_go();
  for (auto& one : waiting) EXPECT_EQ(status_of(one->read_response()), "HTTP/1.1 200 OK");
}

constexpr std::string_view kBusy = "HTTP/1.1 503 Service Unavailable";

TEST(HttpServer, ARequestForAFullLaneIsToldToComeAgain) {
  Gate gate;
  const auto server = serve(service_with_a_slow_lane(gate, {.workers = 1, .waiting = 1}));
  Client first(server->port());
  Client second(server->port());
  Client third(server->port());
  ask(first, "/slow");
  ASSERT_TRUE(gate.wait_for_entry());
  ask(second, "/slow");
  ask(third, "/slow");
  // Which of the two found the lane full is not known; it is told so long before the other one.
  pollfd either[] = {{second.descriptor(), POLLIN, 0}, {third.descriptor(), POLLIN, 0}};
  ASSERT_EQ(::poll(either, 2, 10'000), 1);
  Client& refused = either[0].revents ? second : third;
  Client& waits = either[0].revents ? third : second;
  const std::string response = refused.read_response();
  EXPECT_EQ(status_of(response), kBusy);
  EXPECT_NE(response.find("Retry-After: 1\r\n"), std::string::npos);
  gate.let_go();
  EXPECT_EQ(status_of(first.read_response()), "HTTP/1.1 200 OK");
  EXPECT_EQ(status_of(waits.read_response()), "HTTP/1.1 200 OK");
}

TEST(HttpServer, WaitingForAWorkerAndForItsAnswerHasAnEnd) {
  Gate gate;
  HttpLimits limits;
  limits.worker = 100ms;
  limits.answer = 300ms;
  const auto server = serve(service_with_a_slow_lane(gate, {.workers = 1, .waiting = 4}), limits);
  Client at_work(server->port());
  ask(at_work, "/slow");
  ASSERT_TRUE(gate.wait_for_entry());
  Client waiting(server->port());
  ask(waiting, "/slow");
  EXPECT_EQ(status_of(waiting.read_response()), kBusy);
  EXPECT_EQ(status_of(at_work.read_response()), kBusy);
  gate.let_go();
  Client later(server->port());
  EXPECT_TRUE(is_answered(later, "/slow"));
}

TEST(HttpServer, RequestsForOnePathThatWaitInASharedLaneAreOneCall) {
  Gate gate;
  std::atomic<int> calls{0};
  auto service = service_with_a_slow_lane(gate, {.workers = 1, .waiting = 1, .shared = true});
  service.handler = [&, inner = service.handler](const HttpRequest& request) {
    ++calls;
    return inner(request);
  };
  const auto server = serve(std::move(service));
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(server->port()));
    ask(*clients.back(), "/slow");
    if (i == 0) {
      ASSERT_TRUE(gate.wait_for_entry());
    }
  }
  Client last(server->port());
  EXPECT_TRUE(is_answered(last, "/now"));  // so those before it have been read
  gate.let_go();
  for (auto& one : clients) EXPECT_TRUE(one->read_response().ends_with("GET /slow"));
  EXPECT_EQ(calls, 3);  // the first one, one for the other 19, and the last one
}

TEST(HttpServer, StopEndsIdleConnectionsAndFreesThePort) {
  auto server = serve();
  const int port = server->port();
  Client idle(port);
  Client used(port);
  Client half(port);
  half.send("GET / HT");
  used.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(used.read_response().ends_with("GET /"));
  const auto before = SteadyClock::now();
  server->stop();
  server->stop();
  EXPECT_LT(SteadyClock::now() - before, 5s);
  EXPECT_TRUE(idle.is_ended());
  EXPECT_TRUE(used.is_ended());
  EXPECT_TRUE(half.is_ended());
  EXPECT_FALSE(Client(port).connected());
  EXPECT_TRUE(HttpServer::start("127.0.0.1:" + std::to_string(port), {.handler = echo}));
}

TEST(HttpServer, StopWaitsForTheHandlerAndDropsWhatIsQueuedBehindIt) {
  Gate gate;
  std::atomic<int> calls{0};
  auto server = serve([&](const HttpRequest&) {
    ++calls;
    gate.pass();
    return HttpResponse{};
  });
  Client first(server->port());
  Client second(server->port());
  first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(gate.wait_for_entry());
  second.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  std::thread stopping([&] { server->stop(); });
  EXPECT_TRUE(second.is_ended());  // while the handler is still at work
  gate.let_go();
  stopping.join();
  EXPECT_EQ(calls, 1);
}

TEST(HttpServer, StopUnderLoadIsClean) {
  for (int round = 0; round < 20; ++round) {
    auto server = serve();
    std::vector<std::thread> clients;
    std::atomic<int> answered{0};
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([&, port = server->port()] {
        Client client(port);
        while (client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") &&
               client.read_response().ends_with("GET /")) {
          ++answered;
        }
      });
    }
    const Deadline deadline = Deadline::after(10s);
    while (answered < 8 && !deadline.passed()) std::this_thread::yield();
    server.reset();
    for (std::thread& client : clients) client.join();
    EXPECT_GE(answered, 8);
  }
}

TEST(HttpServer, ATakenPortIsAClearErrorWithItsRemedy) {
  const auto server = serve();
  const std::string address = "127.0.0.1:" + std::to_string(server->port());
  const auto second = HttpServer::start(address, {.handler = echo});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().error_class, ErrorClass::misconfigured);
  EXPECT_EQ(second.error().message,
            "metrics and health cannot be served on " + address + ": Address already in use");
  EXPECT_NE(second.error().remedy.find("--metrics-addr"), std::string::npos);
}

TEST(HttpServer, AddressesAreReadOrRefusedClearly) {
  for (const char* address : {"127.0.0.1:0", "localhost:0", "0.0.0.0:0", ":0"}) {
    const auto server = HttpServer::start(address, {.handler = echo});
    ASSERT_TRUE(server) << server.error().message;
    EXPECT_GT((*server)->port(), 0);
  }
  for (const char* address : {"", "9090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1",
                              "127.0.0.1:65536", "nowhere:80", "[::1:0", "127.0.0.1: 80"}) {
    const auto server = HttpServer::start(address, {.handler = echo});
    ASSERT_FALSE(server) << address;
    EXPECT_EQ(server.error().error_class, ErrorClass::misconfigured);
    EXPECT_NE(server.error().remedy.find("--metrics-addr"), std::string::npos);
  }
}

TEST(HttpServer, ListensOnIpv6) {
  const int probe = ::socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool available =
      probe >= 0 && ::bind(probe, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
  if (probe >= 0) ::close(probe);
  if (!available) GTEST_SKIP() << "this machine has no IPv6 loopback";
  const auto server = HttpServer::start("[::1]:0", {.handler = echo});
  ASSERT_TRUE(server) << server.error().message;
  EXPECT_GT((*server)->port(), 0);
}

TEST(HttpServer, ArbitraryBytesDoNotStopTheService) {
  const auto server = serve();
  const auto piece = rc::gen::elementOf(std::vector<std::string>{
      "GET ", "POST ", "/", " HTTP/1.1\r\n", "Content-Length: 5\r\n", "\r\n", "abc",
      "Transfer-Encoding: chunked\r\n", "5\r\n", "0\r\n", "\xff", "Expect: 100-continue\r\n", "%",
      "?a=%4", std::string(1, '\0'), "Connection: close\r\n", "HEAD / HTTP/1.0\r\n\r\n"});
  EXPECT_TRUE(rc::check("bytes", [&] {
    std::string bytes;
    for (const std::string& part : *rc::gen::container<std::vector<std::string>>(piece)) {
      bytes += part;
    }
    Client client(server->port());
    client.send(bytes);
    client.end_sending();
    RC_ASSERT(client.is_ended());
  }));
  EXPECT_TRUE(answer_to(*server, "GET /ok HTTP/1.1\r\n\r\n").ends_with("GET /ok"));
}

}  // namespace
}  // namespace relay::admin
