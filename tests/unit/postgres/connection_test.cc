#include "postgres/connection.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "postgres/pool.h"

namespace relay::postgres {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A server on a loopback port that answers each connection with `answer`, or with nothing if that
/// is empty.
class Listener {
 public:
  explicit Listener(std::string answer = {}) : answer_(std::move(answer)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t size = sizeof address;
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    EXPECT_EQ(::listen(socket_, 8), 0);
    if (!answer_.empty()) thread_ = std::jthread([this](std::stop_token stop) { serve(stop); });
  }
  ~Listener() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    ::close(socket_);
  }

  std::string url() const {
    return fmt::format("postgres://bob:hush@127.0.0.1:{}/shop?sslmode=disable&gssencmode=disable",
                       port_);
  }

 private:
  void serve(std::stop_token stop) const {
    while (!stop.stop_requested()) {
      pollfd waiting{socket_, POLLIN, 0};
      if (::poll(&waiting, 1, 20) <= 0) continue;
      const int client = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      char startup[1024];
      if (::recv(client, startup, sizeof startup, 0) > 0) {
        ::send(client, answer_.data(), answer_.size(), MSG_NOSIGNAL);
      }
      ::close(client);
    }
  }

  std::string answer_;
  int socket_;
  int port_;
  std::jthread thread_;
};

/// An ErrorResponse as a server sends it.
std::string refusal(const std::string& state, const std::string& message) {
  std::string fields = "SFATAL" + std::string(1, '\0') + "VFATAL" + std::string(1, '\0') + "C" +
                       state + std::string(1, '\0') + "M" + message + std::string(1, '\0') +
                       "Fauth.c" + std::string(1, '\0') + "L335" + std::string(1, '\0') +
                       "Rauth_failed" + std::string(2, '\0');
  const std::uint32_t length = htonl(static_cast<std::uint32_t>(fields.size() + 4));
  return "E" + std::string(reinterpret_cast<const char*>(&length), 4) + fields;
}

Error opening(const std::string& url, milliseconds timeout = seconds(10),
              std::stop_token stop = {}) {
  Connection::Options options;
  options.url = url;
  options.connect_timeout = timeout;
  auto opened = Connection::open(options, std::move(stop));
  EXPECT_FALSE(opened);
  return opened ? Error{} : opened.error();
}

TEST(Connection, AUrlThatCannotBeReadIsMisconfiguredAndNotQuoted) {
  const Error error = opening("postgres://bob:hush@host:port:5/db?nonsense=1");
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
  EXPECT_EQ(error.message.find("hush"), std::string::npos);
}

TEST(Connection, ASetUpThatIsRefusedIsClassifiedByItsSqlstateInAnyLanguage) {
  const Listener wrong_password(refusal("28P01", "Passwort-Authentifizierung fehlgeschlagen"));
  const Error error = opening(wrong_password.url());
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
  EXPECT_EQ(error.code, "28P01");
  EXPECT_NE(error.message.find("Passwort-Authentifizierung"), std::string::npos);
  EXPECT_EQ(error.message.find("auth.c"), std::string::npos);
  EXPECT_EQ(error.message.find("hush"), std::string::npos);
  EXPECT_FALSE(error.remedy.empty());

  const Listener starting(refusal("57P03", "the database system is starting up"));
  EXPECT_EQ(opening(starting.url()).error_class, ErrorClass::transient);
}

TEST(Connection, AServerThatIsNotThereIsTransientAndNamed) {
  std::string url;
  {
    const Listener gone;
    url = gone.url();
  }
  const Error error = opening(url);
  EXPECT_EQ(error.error_class, ErrorClass::transient);
  EXPECT_NE(error.message.find("127.0.0.1"), std::string::npos);
  EXPECT_NE(error.message.find("/shop"), std::string::npos);
  EXPECT_EQ(error.message.find("hush"), std::string::npos);
}

TEST(Connection, AServerThatSaysNothingIsGivenUpAtTheDeadline) {
  const Listener silent;
  const auto before = SteadyClock::now();
  const Error error = opening(silent.url(), milliseconds(50));
  EXPECT_EQ(error.error_class, ErrorClass::transient);
  EXPECT_EQ(error.code, "timeout");
  EXPECT_LT(SteadyClock::now() - before, seconds(5));
}

TEST(Connection, AStopEndsTheWaitForAServer) {
  const Listener silent;
  std::stop_source stop;
  const std::jthread stopper([&] { stop.request_stop(); });
  const auto before = SteadyClock::now();
  const Error error = opening(silent.url(), seconds(30), stop.get_token());
  EXPECT_EQ(error.error_class, ErrorClass::cancelled);
  EXPECT_LT(SteadyClock::now() - before, seconds(10));
}

TEST(ErrorOfState, ClassesFollowWhatCanBeDone) {
  const auto class_of = [](std::string_view state) {
    return error_of_state(state, "").error_class;
  };
  for (const char* state :
       {"", "08006", "40001", "40P01", "53300", "55P03", "57014", "57P01", "25006", "58030"}) {
    EXPECT_EQ(class_of(state), ErrorClass::transient) << state;
  }
  for (const char* state : {"28P01", "28000", "3D000", "42501", "42P01", "3F000", "42883"}) {
    EXPECT_EQ(class_of(state), ErrorClass::misconfigured) << state;
  }
  for (const char* state : {"22P02", "23505", "54000"}) {
    EXPECT_EQ(class_of(state), ErrorClass::rejected) << state;
  }
}

TEST(Pool, AConnectionThatCannotBeOpenedLeavesItsPlaceFree) {
  const Listener refusing(refusal("53300", "sorry, too many clients already"));
  Connection::Options options;
  options.url = refusing.url();
  Pool pool(options, 1);
  for (int i = 0; i < 3; ++i) {
    const auto lease = pool.borrow(Deadline::after(seconds(10)), {});
    ASSERT_FALSE(lease);
    EXPECT_EQ(lease.error().code, "53300");
  }
  EXPECT_EQ(pool.open_connections(), 0U);
  EXPECT_FALSE(pool.contended());
}

TEST(Pool, WhoWaitsIsSentAwayAtTheDeadlineAndByAStop) {
  const Listener silent;
  Connection::Options options;
  options.url = silent.url();
  Pool pool(options, 1);
  std::stop_source stop;
  std::jthread holder([&] {
    // Has the only place for as long as the server says nothing.
    const auto never = pool.borrow(Deadline::after(seconds(30)), stop.get_token());
    EXPECT_FALSE(never);
  });
  while (pool.open_connections() == 0) std::this_thread::yield();
  const auto late = pool.borrow(Deadline::after(milliseconds(20)), {});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, "pool_exhausted");

  std::jthread stopped([&] {
    const auto lease = pool.borrow(Deadline::after(seconds(30)), stop.get_token());
    EXPECT_EQ(lease.error().error_class, ErrorClass::cancelled);
  });
  while (!pool.contended()) std::this_thread::yield();
  stop.request_stop();
}

TEST(Pool, TheKeeperOfAConnectionIsAskedForItWhenAnotherThreadWaits) {
  struct Asked final : Keeper {
    std::atomic<int> times = 0;
    void give_back(milliseconds, Deadline) override { ++times; }
  };
  const Listener silent;
  Connection::Options options;
  options.url = silent.url();
  Pool pool(options, 1);
  Asked keeper;
  pool.add_keeper(&keeper);
  std::stop_source stop;
  std::jthread holder(
      [&] { (void)pool.borrow(Deadline::after(seconds(30)), stop.get_token()).has_value(); });
  while (pool.open_connections() == 0) std::this_thread::yield();
  EXPECT_EQ(keeper.times, 0);
  EXPECT_FALSE(pool.borrow(Deadline::after(milliseconds(10)), {}));
  EXPECT_EQ(keeper.times, 1);
  pool.remove_keeper(&keeper);
  stop.request_stop();
}

}  // namespace
}  // namespace relay::postgres
