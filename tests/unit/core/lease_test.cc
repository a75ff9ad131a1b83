#include "core/lease.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <string>
#include <thread>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Two ends of a TCP connection.
class Connected {
 public:
  Connected() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(0, ::bind(listener, reinterpret_cast<sockaddr*>(&address), size));
    EXPECT_EQ(0, ::listen(listener, 1));
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    near = ::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(0, ::connect(near, reinterpret_cast<sockaddr*>(&address), size));
    far = ::accept(listener, nullptr, nullptr);
    ::close(listener);
  }
  ~Connected() {
    ::close(near);
    ::close(far);
  }
  bool send(std::string_view text) const {
    return ::send(near, text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }
  /// Everything that arrives until the connection ends.
  std::string rest() const {
    std::string all;
    std::array<char, 65536> room;
    while (true) {
      const ssize_t got = ::recv(far, room.data(), room.size(), 0);
      if (got <= 0) return all;
      all.append(room.data(), static_cast<std::size_t>(got));
    }
  }

  int near = -1;
  int far = -1;
};

void wait_until(BootClock::time_point moment) {
  while (BootClock::now() < moment) std::this_thread::sleep_for(milliseconds(1));
}

TEST(Lease, DoesNotHoldUntilItIsExtended) {
  Lease lease;
  EXPECT_FALSE(lease.holds());
  EXPECT_TRUE(lease.is_cut());
  const auto now = BootClock::now();
  lease.extend(now + seconds(1), now + seconds(2));
  EXPECT_TRUE(lease.holds(now));
  EXPECT_FALSE(lease.holds(now + seconds(1)));
  EXPECT_FALSE(lease.is_cut(now + seconds(1)));
  EXPECT_TRUE(lease.is_cut(now + seconds(2)));
  lease.end();
  EXPECT_FALSE(lease.holds(now));
  EXPECT_TRUE(lease.is_cut(now));
}

TEST(SocketCutter, RefusesAConnectionWithoutALease) {
  const Connected connected;
  Lease lease;
  const auto cutter = SocketCutter::make(lease, connected.near);
  ASSERT_FALSE(cutter);
  EXPECT_EQ("lease_over", cutter.error().code);
}

TEST(SocketCutter, LeavesAConnectionAloneWhoseLeaseIsRenewed) {
  const Connected connected;
  Lease lease;
  const auto first_end = BootClock::now() + milliseconds(1000);
  lease.extend(first_end, first_end);
  const auto cutter = SocketCutter::make(lease, connected.near);
  ASSERT_TRUE(cutter);
  lease.extend(first_end + seconds(60), first_end + seconds(60));
  wait_until(first_end + milliseconds(20));
  EXPECT_TRUE(connected.send("new"));
}

TEST(SocketCutter, EndsAConnectionInTheMidstOfWriting) {
  const Connected connected;
  Lease lease;
  lease.extend(BootClock::now() + seconds(60), BootClock::now() + seconds(60));
  std::atomic<int> sent = 0;
  std::thread writer([&] {
    const auto cutter = SocketCutter::make(lease, connected.near);
    while (connected.send("x")) ++sent;
  });
  std::string received;
  std::thread reader([&] { received = connected.rest(); });
  while (sent < 100) std::this_thread::yield();
  lease.end();
  writer.join();
  reader.join();
  EXPECT_LE(received.size(), static_cast<std::size_t>(sent.load()));
}

/// What no look at a clock can rule out: frozen when it has looked, and before it writes.
TEST(SocketCutter, LetsNothingOutOfAProcessThatWasFrozenBetweenTheLookAndTheWrite) {
  const Connected connected;
  const auto end = BootClock::now() + milliseconds(2000);
  const pid_t child = ::fork();
  if (child == 0) {
    Lease lease;
    lease.extend(end, end);
    const auto cutter = SocketCutter::make(lease, connected.near);
    const bool looked = cutter && lease.holds() && connected.send("before");
    if (looked) ::raise(SIGSTOP);
    const bool sent = connected.send("after");
    ::_exit(looked && !sent ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(child, ::waitpid(child, &status, WUNTRACED));
  ASSERT_TRUE(WIFSTOPPED(status));
  wait_until(end);
  ::kill(child, SIGCONT);
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ("before", connected.rest());
}

/// What the peer does not take stays with the kernel, and goes with the connection.
TEST(SocketCutter, DropsWhatWasNotSent) {
  const Connected connected;
  const int room = 4096;
  ::setsockopt(connected.far, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  Lease lease;
  lease.extend(BootClock::now() + seconds(60), BootClock::now() + seconds(60));
  const auto cutter = SocketCutter::make(lease, connected.near);
  ASSERT_TRUE(cutter);
  const std::string piece(4096, 'x');
  std::size_t taken = 0;
  while (true) {
    const ssize_t sent =
        ::send(connected.near, piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) break;
    taken += static_cast<std::size_t>(sent);
  }
  lease.end();
  while (connected.send("x")) std::this_thread::yield();
  EXPECT_LT(connected.rest().size(), taken);
}

}  // namespace
}  // namespace relay
