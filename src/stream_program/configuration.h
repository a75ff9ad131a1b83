#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"
#include "config/pipeline_config.h"
#include "config/tree.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "stream_program/certificates.h"

namespace relay::stream_program {

/// What becomes of a stream whose database is on another system than before.
enum class OtherSystem {
  refuse,  ///< it waits for the operator's decision
  resend,  ///< what is not known to be settled is delivered
  skip,    ///< it begins with what comes from now on
};

/// The settings of the whole program.
struct Settings {
  std::string metrics_addr;
  std::string log_format;
  std::string log_level;
  std::chrono::milliseconds lease_timeout{};
  std::chrono::milliseconds drain_timeout{};
  OtherSystem other_system = OtherSystem::refuse;  ///< of the command line
};

/// A stream of the configuration.
struct StreamConfig {
  std::int64_t id = 0;
  bool replicates = true;  ///< false: its events are read by queries
  std::string database;    ///< as libpq takes it; holds the password
  /// What `database` names as its certificates; null: it names a file, or none.
  std::shared_ptr<const Certificates> certificates;
  config::PipelineConfig pipeline;
};

/// Of a session with the stream's database.
postgres::Connection::Options options_of(const StreamConfig& stream, std::string application_name);

struct Configuration {
  Settings settings;
  std::vector<StreamConfig> streams;
  std::vector<Error> problems;  ///< not empty: nothing may run
};

/// Environment variables whose names begin with POSTGRES_STREAM__, with their values.
using Overrides = std::map<std::string, std::string>;
Overrides overrides_of(const char* const* environment);

/// Reads config.yaml. POSTGRES_STREAM__STREAM__ID overrides `id` in `stream`, and
/// POSTGRES_STREAM__STREAMS__0__ID that of the first of `streams`.
Configuration read_configuration(const config::Catalogue& catalogue, std::string_view text,
                                 std::string_view file, const Overrides& overrides);

}  // namespace relay::stream_program
