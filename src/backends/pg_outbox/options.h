#pragma once

#include <chrono>
#include <string>

#include "config/fields.h"
#include "core/error.h"

namespace relay::pg_outbox {

/// The options of the source, checked.
struct Options {
  std::string url;
  std::string outbox;  ///< as the other database names it; empty: a table is read
  std::string table;
  std::string id_column;
  std::string xid_column;  ///< empty: ids alone decide
  std::string payload_column;
  std::string event_id_column;
  std::string event_type_column;
  std::string key_column;
  std::string headers_column;
  std::string created_at_column;
  std::string group;  ///< empty: made from the relay's own group and database
  std::chrono::milliseconds poll_interval{};
  std::chrono::milliseconds connect_timeout{};
  bool host_credentials = true;  ///< postgres::Connection::Options
};

config::FieldTable source_fields();

/// Checks what single options cannot say.
Result<Options> parse_options(const config::Values& values);

}  // namespace relay::pg_outbox
