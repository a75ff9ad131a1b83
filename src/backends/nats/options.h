#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"
#include "config/tls.h"
#include "connector/key_order.h"
#include "core/error.h"

namespace relay::nats {

/// Where a server is. Credentials are taken out of the URL, so that `address` may be shown.
struct Endpoint {
  std::string host;
  std::string address;  ///< "host:port"
  bool tls = false;
  std::string user;
  std::string password;
  std::string token;
};

/// "nats://", "tls://" or no scheme; credentials before an @ are percent-decoded; the port is 4222
/// unless given. Several are separated by commas. Misconfigured: anything else.
Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls);

/// What goes before the credentials of the URLs.
struct Login {
  std::optional<std::string> user;
  std::string password;
  std::optional<std::string> token;
};

/// Limits of a stream that is made; absent: the server's defaults.
struct StreamLimits {
  std::int64_t replicas = 1;
  std::optional<std::chrono::milliseconds> max_age;
  std::optional<std::int64_t> max_bytes;
  std::optional<std::int64_t> max_messages;
  std::optional<std::chrono::milliseconds> duplicate_window;
  bool allows_rollup = false;
};

/// The options of the sink, and what the source shares with it; checked.
struct Options : config::TlsOptions {
  std::vector<Endpoint> endpoints;  ///< `login` is in them
  Login login;
  std::string stream;
  bool create_stream = false;
  std::string new_stream;                    ///< the name of a stream that is made; may be empty
  std::vector<std::string> stream_subjects;  ///< of a stream that is made; may be empty
  StreamLimits limits;                       ///< of a stream that is made
  std::string domain;                        ///< of JetStream; may be empty
  std::string api_prefix;                    ///< of JetStream's API: what `domain` implies, too
  std::string inbox_prefix;                  ///< of the subjects on which answers come
  std::string credentials_file;
  bool tls = false;
  std::size_t max_in_flight = 0;
  std::chrono::milliseconds ack_timeout{};
  std::chrono::milliseconds connect_timeout{};
  std::chrono::milliseconds operation_timeout{};
  KeyOrder key_order{};
  bool looks_only = false;  ///< make no stream: `check` asks whether it would work
  std::string pipeline;     ///< whose sink this is: the connection's name, and for the log
};

/// Puts the login into the endpoints, and checks what sink and source share.
Result<void> complete_connection(Options& options);

/// The only protocol headers that a configuration may set.
inline constexpr std::string_view kSettableHeaders[] = {"Nats-TTL", "Nats-Rollup"};

/// How `subject_dots` makes values legal in a subject.
void (*escape_of(const config::Values& values))(std::string& out, std::string_view value);

config::FieldTable sink_fields();

/// Checks what single options cannot say. `subject_template`: the pipeline's, if it has one; a
/// stream that is made takes what it can become.
Result<Options> parse_options(const config::Values& values,
                              const std::optional<std::string>& subject_template);

/// The subject template that `subject` implies: "orders.>" is "orders.{stream_table}", absent is
/// "{stream_table}". Misconfigured: any other wildcard.
Result<std::string> default_subject(const config::Values& values);
Result<std::string> subject_template_of(std::string_view subject);

}  // namespace relay::nats
