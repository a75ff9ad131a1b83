#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace relay::config {

/// The name that a type of source or sink goes by: "pg-inbox" for "inbox", "webhook" for "http".
std::string canonical_type(std::string_view type);

/// The types of a pipeline's ends, as they were written; empty where one is not known.
struct EndTypes {
  std::string source;
  std::string sink;
};

/// The end that a key of the flat form belongs to.
struct Owner {
  enum class Side { none, source, sink, both };
  Side side = Side::none;
  std::string option;  ///< its name there
};

/// `nats_url` is `url` of the nats end; a few names stand without a prefix (`stream_table`,
/// `inbox_table`, `path`). `both` where the two ends are of one backend.
Owner owner_of(std::string_view key, const EndTypes& types);

/// Names without a prefix that the flat form knows for these types.
std::vector<std::string_view> plain_names(const EndTypes& types);

}  // namespace relay::config
