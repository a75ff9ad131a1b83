#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"

namespace relay::config {

/// One end of a pipeline: the type as it was written (empty: not known), and what it means (null:
/// no such type).
struct End {
  std::string written;
  const EndType* type = nullptr;

  /// The name that the type goes by: "webhook" for "http". An unknown one stays as it was written.
  std::string name() const { return type ? type->name : written; }
};

/// Both ends of a pipeline.
struct Ends {
  End source;
  End sink;
};

/// The end that a key of the flat form belongs to.
struct Owner {
  enum class Side { none, source, sink, both };
  Side side = Side::none;
  std::string option;  ///< its name there
};

/// `nats_url` is `url` of the nats end; a few names stand without a prefix (`stream_table`,
/// `inbox_table`, `path`). `both` where the two ends are of one type.
Owner owner_of(std::string_view key, const Ends& ends);

/// Names without a prefix that the flat form knows for these ends, each once.
std::vector<std::string_view> plain_names(const Ends& ends);

/// Every name that the flat form knows for the options of these ends ("nats_url").
std::vector<std::string> flat_names(const Ends& ends);

/// "pg_inbox_" for the type "pg-inbox".
std::string flat_prefix(std::string_view type);

}  // namespace relay::config
