#include "backends/webhook/send_order.h"

#include <string_view>
#include <unordered_map>

namespace relay::webhook {

SendOrder::SendOrder(std::span<const Message> messages, std::span<const Run> runs, bool single)
    : waits_for_(runs.size()), followers_(runs.size()) {
  std::unordered_map<std::string_view, std::size_t> last_of_key;
  for (std::size_t run = 0; run < runs.size(); ++run) {
    if (single) {
      for (const Message& message : messages.subspan(runs[run].first, runs[run].count)) {
        const auto [last, is_first] = last_of_key.try_emplace(message.key, run);
        if (is_first || last->second == run) continue;
        // Several keys in common with one earlier run are several edges: each is undone by itself.
        followers_[last->second].push_back(run);
        ++waits_for_[run];
        last->second = run;
      }
    }
    if (waits_for_[run] == 0) ready_.push_back(run);
  }
}

std::ptrdiff_t SendOrder::next() {
  if (ready_.empty()) return -1;
  const std::size_t run = ready_.front();
  ready_.pop_front();
  return static_cast<std::ptrdiff_t>(run);
}

void SendOrder::finished(std::size_t run) {
  for (const std::size_t follower : followers_[run]) {
    if (--waits_for_[follower] == 0) ready_.push_back(follower);
  }
}

}  // namespace relay::webhook
