#include "config/flat_form.h"

#include <algorithm>
#include <array>

namespace relay::config {
namespace {

using Side = Owner::Side;

struct Alias {
  std::string_view alias;
  std::string_view type;
};
constexpr std::array<Alias, 4> kAliases{{{"inbox", "pg-inbox"},
                                         {"pg_inbox", "pg-inbox"},
                                         {"pg_outbox", "pg-outbox"},
                                         {"http", "webhook"}}};

// Types of one backend: each of their prefixes stands for all of them.
constexpr std::array<std::string_view, 3> kFileTypes{"stdout", "file", "stdin"};

// Options that need no prefix, because their names are those of one backend only.
struct Plain {
  std::string_view type;
  Side side;
  std::string_view name;
};
constexpr std::array kPlain = {
    Plain{"outbox", Side::source, "stream_table"},
    Plain{"outbox", Side::source, "outbox"},
    Plain{"outbox", Side::source, "group"},
    Plain{"pg-outbox", Side::source, "stream_table"},
    Plain{"pg-outbox", Side::source, "outbox"},
    Plain{"pg-inbox", Side::sink, "inbox_table"},
    Plain{"pg-inbox", Side::sink, "inbox_name"},
    Plain{"file", Side::both, "path"},
    Plain{"file", Side::both, "format"},
    Plain{"file", Side::sink, "rotate_bytes"},
    Plain{"file", Side::sink, "rotate_interval"},
    Plain{"file", Side::sink, "compress_rotated"},
    Plain{"file", Side::sink, "fsync"},
    Plain{"file", Side::source, "follow"},
};

bool is_file_type(std::string_view type) {
  return std::find(kFileTypes.begin(), kFileTypes.end(), type) != kFileTypes.end();
}

bool has_plain(std::string_view type, const Plain& plain, Side side) {
  const std::string canonical = canonical_type(type);
  const std::string_view family = is_file_type(canonical) ? "file" : std::string_view(canonical);
  return plain.type == family && (plain.side == side || plain.side == Side::both);
}

// How well `key` fits an end of this type (0: not at all), and the option that it then means.
struct Match {
  int rank = 0;
  std::string option;
};

void match_prefix(std::string_view key, std::string_view type, int rank, Match& best) {
  std::string prefix(type);
  std::replace(prefix.begin(), prefix.end(), '-', '_');
  prefix += '_';
  if (rank > best.rank && key.size() > prefix.size() && key.starts_with(prefix)) {
    best = {rank, std::string(key.substr(prefix.size()))};
  }
}

Match match(std::string_view key, std::string_view type, Side side) {
  Match best;
  if (type.empty()) return best;
  for (const Plain& plain : kPlain) {
    if (plain.name == key && has_plain(type, plain, side)) return {3, std::string(key)};
  }
  const std::string canonical = canonical_type(type);
  match_prefix(key, type, 2, best);
  match_prefix(key, canonical, 2, best);
  for (const Alias& alias : kAliases) {
    if (alias.type == canonical) match_prefix(key, alias.alias, 2, best);
  }
  if (is_file_type(canonical)) {
    for (const std::string_view other : kFileTypes) match_prefix(key, other, 1, best);
  }
  return best;
}

}  // namespace

std::string canonical_type(std::string_view type) {
  for (const Alias& alias : kAliases) {
    if (alias.alias == type) return std::string(alias.type);
  }
  return std::string(type);
}

Owner owner_of(std::string_view key, const EndTypes& types) {
  Match source = match(key, types.source, Side::source);
  Match sink = match(key, types.sink, Side::sink);
  if (source.rank == 0 && sink.rank == 0) return {};
  if (source.rank == sink.rank) return {Side::both, std::move(sink.option)};
  if (source.rank > sink.rank) return {Side::source, std::move(source.option)};
  return {Side::sink, std::move(sink.option)};
}

std::vector<std::string_view> plain_names(const EndTypes& types) {
  std::vector<std::string_view> names;
  for (const Plain& plain : kPlain) {
    if (has_plain(types.source, plain, Side::source) || has_plain(types.sink, plain, Side::sink)) {
      names.push_back(plain.name);
    }
  }
  return names;
}

}  // namespace relay::config
