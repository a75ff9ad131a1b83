#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"
#include "config/fields.h"
#include "config/tree.h"
#include "core/error.h"

namespace relay::config {

/// The options that any pipeline has, whatever its source and sink. The defaults stand here as well
/// as in the table, because a context without a pipeline's configuration has them too; a test
/// compares both.
struct PipelineOptions {
  std::string start = "earliest";  ///< earliest, latest, snapshot, or an id
  std::int64_t batch_size = 1000;
  std::int64_t batch_bytes = 8 << 20;
  std::optional<std::int64_t> max_in_flight;
  std::chrono::milliseconds retry_min{100};
  std::chrono::milliseconds retry_max{30000};
  std::string on_reject = "dlq";  ///< dlq, park_key, stop, skip
  std::int64_t max_record_bytes = 32 << 20;
  std::optional<std::string> id_prefix;  ///< instead of the pipeline's name
  std::string message = "delta";         ///< delta, row
  std::int64_t delta_max_rows = 1000;
  std::string wire_format = "native";           ///< native, debezium, cloudevents
  std::string cloudevents_mode = "structured";  ///< structured, binary
  std::string cloudevents_source;               ///< empty: /pgtrickle/<pipeline>
  bool tombstones = false;
  std::optional<std::string> subject_template;
  std::optional<std::string> key_template;
  std::map<std::string, std::string> headers;
  std::optional<std::string> filter;
  std::vector<std::string> columns;      ///< empty: all
  std::string ordering = "key";          ///< key, none
  std::string full_refresh = "forward";  ///< forward, skip
  bool event_envelope = false;
  double rate_limit = 0;  ///< messages a second; 0: none
};

/// The table behind PipelineOptions (names as in docs/configuration.md: `start`, `batch_size`,
/// ...). `retry` is an object {min, max}; `retry_min` and `retry_max` are its flat spellings.
FieldTable pipeline_fields();

/// The options that retention obeys, in the database: of pipelines in SQL that read an outbox of
/// it.
FieldTable retention_fields();

/// A pipeline as its author wrote it, sorted into parts, with references resolved. Backend options
/// are still unchecked: the registry knows the tables that they must fit. `subject_template`,
/// `key_template` and `headers` of a sink are in `options` and not in `sink`; a sink's
/// `max_in_flight` is in both; `start` of an outbox is in `options`.
struct PipelineConfig {
  std::string name;
  std::string direction;  ///< forward, reverse, bridge
  bool enabled = true;
  std::string source_type;  ///< not an alias; "outbox" for an outbox of the relay's own database
  Node::Object source;      ///< its options, without `type`
  std::string sink_type;
  Node::Object sink;
  PipelineOptions options;
  std::string place;  ///< "relay.toml:9:1" or "pipeline orders-to-nats"
  std::string
      fingerprint;  ///< differs when anything of the above differs; holds no secret (a hash)
  std::vector<Error> problems;                ///< not empty: the pipeline must not run
  std::vector<ResolvedReference> references;  ///< that were put in; holds secrets
  Node::Object headers;                       ///< `options.headers` with their origins
  /// What it may take from the relay's host; unset: the operator wrote it and may use anything.
  std::optional<HostAccess> access;
};

/// From the SQL catalog: flat form ({"stream_table", "sink_type", "nats_url", ...}), nested form
/// ({"source": {...}, "sink": {...}}) or a mix. A flat key `<type>_x` is option x of the sink or
/// source of that type (hyphens in the type are underscores); plain options (`stream_table`,
/// `inbox_table`) need no prefix. A prefix that fits both ends is a problem. `direction` may be
/// empty: it then follows from the types. References outside of `access` are problems.
PipelineConfig pipeline_from_json(const Catalogue& catalogue, std::string_view name,
                                  std::string_view direction, bool enabled, std::string_view json,
                                  const HostAccess& access = {});

/// A TOML file: the values of [global] that are good, and the pipelines of [[pipeline]]. `problems`
/// are those of [global] and of what is neither: the file must not be used with one. Only a file
/// that cannot be parsed is an error as a whole. Two pipelines of one name become one with a
/// problem.
struct FileConfig {
  Node::Object global;
  std::vector<PipelineConfig> pipelines;
  std::vector<Error> problems;
};
Result<FileConfig> parse_config_file(const Catalogue& catalogue, std::string_view text,
                                     std::string_view file);

/// Several problems as one error. There is at least one.
Error combined(std::vector<Error> problems);

}  // namespace relay::config
