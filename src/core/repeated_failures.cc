#include "core/repeated_failures.h"

#include <algorithm>

namespace relay::log {
namespace {

std::string key_of(std::string_view event, std::string_view pipeline) {
  std::string key(event);
  key += '\0';
  key += pipeline;
  return key;
}

std::chrono::seconds whole_seconds(SteadyClock::duration duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration);
}

}  // namespace

RepeatedFailures::Told RepeatedFailures::failed(std::string_view event, std::string_view pipeline,
                                                std::string_view what,
                                                SteadyClock::time_point now) {
  std::vector<Failure>& known = failures_[key_of(event, pipeline)];
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const Failure& failure) { return failure.what == what; });
  if (found != known.end() && now - found->last <= kForgotten) {
    found->last = now;
    ++found->times;
    const bool remind = now - found->told >= kReminder;
    if (remind) found->told = now;
    return {remind ? Verdict::reminder : Verdict::counted, found->times,
            whole_seconds(now - found->first)};
  }
  if (found != known.end()) {
    known.erase(found);
  } else if (known.size() == kRemembered) {
    known.erase(known.begin());
  }
  known.push_back({std::string(what), now, now, now, 1});
  return {};
}

std::optional<RepeatedFailures::Told> RepeatedFailures::recovered(std::string_view event,
                                                                  std::string_view pipeline,
                                                                  SteadyClock::time_point now) {
  const auto found = failures_.find(key_of(event, pipeline));
  if (found == failures_.end()) return std::nullopt;
  Told told{Verdict::first, 0, {}};
  SteadyClock::time_point first = now;
  for (const Failure& failure : found->second) {
    told.times += failure.times;
    first = std::min(first, failure.first);
  }
  told.lasting = whole_seconds(now - first);
  failures_.erase(found);
  return told;
}

}  // namespace relay::log
