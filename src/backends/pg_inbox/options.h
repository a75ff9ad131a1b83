#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "config/fields.h"
#include "core/error.h"

namespace relay::pg_inbox {

/// How to treat a message whose id another message in the inbox has.
enum class OnIdConflict { store, reject, ignore };

/// The options of the sink, checked.
struct Options {
  std::string url;  ///< empty: the relay's own database
  std::string inbox_name;
  std::string inbox_table;  ///< one of the two is set
  /// The column for each part of a message; empty: the part is not stored.
  std::map<std::string, std::string> column_map;
  std::optional<std::int64_t> max_retries;
  std::optional<std::string> schedule;
  std::optional<bool> with_dead_letter;
  std::optional<std::int64_t> retention_hours;
  OnIdConflict on_id_conflict{};
  std::size_t rows_per_statement = 0;
  std::chrono::milliseconds connect_timeout{};
  std::chrono::milliseconds operation_timeout{};
  std::string pipeline;          ///< stored as `source`
  bool host_credentials = true;  ///< postgres::Connection::Options
  bool looks_only = false;       ///< a missing inbox is not created
};

config::FieldTable sink_fields();

/// Checks the options that depend on each other.
Result<Options> parse_options(const config::Values& values);

}  // namespace relay::pg_inbox
