#include "config/flat_form.h"

#include <algorithm>

namespace relay::config {
namespace {

using Side = Owner::Side;

/// How well `key` fits an end (0: not at all), and the option that it then means.
struct Match {
  int rank = 0;
  std::string option;
};

constexpr int kRelatedPrefix = 1;
constexpr int kOwnPrefix = 2;
constexpr int kPlain = 3;

void match_prefix(std::string_view key, std::string_view type, int rank, Match& best) {
  const std::string prefix = flat_prefix(type);
  if (rank > best.rank && key.size() > prefix.size() && key.starts_with(prefix)) {
    best = {rank, std::string(key.substr(prefix.size()))};
  }
}

Match match(std::string_view key, const End& end) {
  Match best;
  if (!end.type) return best;
  const Field* plain = find_field(end.type->options, key);
  if (plain && plain->plain) return {kPlain, std::string(key)};
  match_prefix(key, end.type->name, kOwnPrefix, best);
  for (const std::string& alias : end.type->aliases) match_prefix(key, alias, kOwnPrefix, best);
  for (const std::string& other : end.type->related) match_prefix(key, other, kRelatedPrefix, best);
  return best;
}

}  // namespace

Owner owner_of(std::string_view key, const Ends& ends) {
  Match source = match(key, ends.source);
  Match sink = match(key, ends.sink);
  if (source.rank == 0 && sink.rank == 0) return {};
  if (source.rank == sink.rank) return {Side::both, std::move(sink.option)};
  if (source.rank > sink.rank) return {Side::source, std::move(source.option)};
  return {Side::sink, std::move(sink.option)};
}

std::vector<std::string_view> plain_names(const Ends& ends) {
  std::vector<std::string_view> names;
  for (const End* end : {&ends.source, &ends.sink}) {
    if (!end->type) continue;
    for (const Field& field : end->type->options) {
      const bool known = std::ranges::find(names, field.name) != names.end();
      if (field.plain && !known) names.push_back(field.name);
    }
  }
  return names;
}

std::vector<std::string> flat_names(const Ends& ends) {
  std::vector<std::string> names;
  for (const End* end : {&ends.source, &ends.sink}) {
    if (!end->type) continue;
    const std::string prefix = flat_prefix(end->written);
    for (const Field& field : end->type->options) {
      for (const std::string_view name : names_of(field))
        names.push_back(prefix + std::string(name));
    }
  }
  return names;
}

std::string flat_prefix(std::string_view type) {
  std::string prefix(type);
  std::ranges::replace(prefix, '-', '_');
  return prefix + "_";
}

}  // namespace relay::config
