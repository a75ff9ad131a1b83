// One of several owners of "orders": `ownership_probe URL PREFIX CHANNEL WORKER TIMEOUT_MS`. Prints
// "joined", "owned" and "lost" until its input ends; then it gives up what it owns.

#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

#include "core/pause.h"
#include "ownership/membership.h"

using namespace relay;
using ownership::Membership;

namespace {

constexpr std::chrono::milliseconds kSlice{20};

void say(const char* what) {
  std::puts(what);
  std::fflush(stdout);
}

bool input_ended() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  return ::poll(&input, 1, static_cast<int>(kSlice.count())) > 0;
}

/// Until the leases are lost, or the input ends.
Result<void> take_part(Membership& membership) {
  if (auto done = membership.connect({}); !done) return done;
  if (auto done = membership.join({}); !done) return done;
  say("joined");
  bool owned = false;
  while (!input_ended()) {
    if (SteadyClock::now() < membership.next_beat()) continue;
    if (const auto renewed = membership.beat({}); !renewed) return fail(renewed.error());
    if (owned) continue;
    const std::array<std::string, 1> names = {"orders"};
    const auto taken = membership.session().take("stream", names, 1, {});
    if (!taken) return fail(taken.error());
    owned = !taken->empty();
    if (owned) say("owned");
  }
  membership.leave();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  postgres::Connection::Options connection;
  connection.url = argv[1];
  Membership membership({.connection = connection,
                         .names = {.prefix = argv[2], .channel = argv[3]},
                         .group = "default",
                         .worker_id = argv[4],
                         .lease_timeout = std::chrono::milliseconds(std::stoi(argv[5]))});
  while (true) {
    const auto ended = take_part(membership);
    if (ended) return 0;
    std::fprintf(stderr, "%s\n", ended.error().message.c_str());
    membership.lost();
    say("lost");
    if (input_ended()) return 1;
    pause(Deadline::after(kSlice), {});
  }
}
