#include "state/skip_set.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <string>

namespace relay::state {

namespace {

/// Takes a number off the front of `text`.
bool take_number(std::string_view& text, std::int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, char wanted) {
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

Result<SkipSet> SkipSet::parse(std::string_view text) {
  SkipSet set;
  std::string_view rest = text;
  bool good = take(rest, '{');
  while (good && !rest.starts_with('}')) {
    if (!set.empty()) good = take(rest, ',');
    Run run{};
    good = good && take(rest, '[') && take_number(rest, run.first) && take(rest, ',') &&
           take_number(rest, run.last) && take(rest, ')') && run.first > set.last() &&
           run.first < run.last;
    --run.last;  // the server's upper bound is outside
    if (good) set.runs_.push_back(run);
  }
  if (!good || rest != "}") {
    return fail(
        ErrorClass::misconfigured, "position",
        fmt::format("the ids that a position skips are not understood: {}", text.substr(0, 100)),
        "use the relay that fits the schema, or run `pgtrickle-relay init` of this version");
  }
  return set;
}

std::int64_t SkipSet::run_end(std::int64_t id) const {
  const auto run =
      std::lower_bound(runs_.begin(), runs_.end(), id,
                       [](const Run& one, std::int64_t wanted) { return one.last < wanted; });
  return run != runs_.end() && run->first <= id ? run->last : 0;
}

}  // namespace relay::state
