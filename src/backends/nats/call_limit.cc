#include "backends/nats/call_limit.h"

#include <utility>

namespace relay::nats {

Result<std::unique_ptr<CallLimit>> CallLimit::make(std::chrono::milliseconds after) {
  // A call may begin just behind the signal: so it comes again.
  constexpr std::chrono::milliseconds kAgain{50};
  // Without SA_RESTART: what is interrupted returns.
  auto timer = ThreadTimer::make(ThreadTimer::Use::call_limit, {[](int, siginfo_t*, void*) {}, 0},
                                 CLOCK_MONOTONIC);
  if (!timer) return fail(timer.error());
  const Deadline end = Deadline::after(after);  // has passed when the first signal comes
  (*timer)->run_out_every(after, kAgain);
  return std::unique_ptr<CallLimit>(new CallLimit(end, std::move(*timer)));
}

}  // namespace relay::nats
