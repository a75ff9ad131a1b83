#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aws/identity.h"
#include "config/fields.h"
#include "core/error.h"

namespace relay::kafka {

/// What sink and source need to reach the cluster.
struct ClientOptions {
  std::string brokers;
  std::chrono::milliseconds connect_timeout{};
  bool tls_verify = true;
  std::optional<aws::Identity> iam;  ///< who asks an Amazon MSK cluster, by sasl_mechanism
  std::string pipeline;              ///< whose client this is: its id, and for the log
  /// Files that must be readable, by the option that names them.
  std::vector<std::pair<std::string, std::string>> files;
  /// Properties of librdkafka, in the order in which they are to be set.
  std::vector<std::pair<std::string, std::string>> properties;
};

/// How topics are made that are absent.
struct NewTopics {
  int partitions = -1;          ///< -1: as the brokers choose
  int replication_factor = -1;  ///< -1: as the brokers choose
  std::map<std::string, std::string> config;
};

/// The options of the sink, checked.
struct SinkOptions {
  ClientOptions client;
  bool create_topics = false;
  NewTopics new_topics;
  bool time_of_change = true;  ///< of records: when the change was made, else when it was sent
  std::string acks;
  bool idempotent = false;
  bool ordered = true;  ///< messages of one key must not overtake each other
  std::size_t max_in_flight = 0;
  std::size_t max_message_bytes = 0;
  std::size_t batch_bytes = 1000000;  ///< what one request may bring to one partition
  std::chrono::milliseconds delivery_timeout{};
};

/// What the library holds fetched ahead of the reader, about: it bounds the memory, where a record
/// takes more than its bytes.
inline constexpr std::size_t kAheadBytes = 2u << 20;
inline constexpr std::size_t kAheadRecords = 5000;

/// The options of the source, checked.
struct SourceOptions {
  ClientOptions client;
  std::vector<std::string> topics;  ///< names, or regular expressions that begin with ^
  std::string group;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Checks what single options cannot say.
Result<SinkOptions> parse_sink_options(const config::Values& values);

/// `default_group`: where `group_id` is not set.
Result<SourceOptions> parse_source_options(const config::Values& values,
                                           const std::string& default_group);

/// The value of a property as it stands in `client`; empty: not set.
std::string_view property(const ClientOptions& client, std::string_view name);

}  // namespace relay::kafka
