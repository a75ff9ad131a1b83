#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/webhook/receiver_answer.h"
#include "connector/field_mapping.h"
#include "core/arena.h"
#include "core/record.h"

namespace relay::webhook {

/// A request as the server read it.
struct ReceivedRequest {
  std::string method;
  std::string target;                                        ///< as sent, with its query
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
  std::string body;
  Timestamp received{};

  /// The value of a header, by its name in lower case; of several, joined by ", ", as HTTP says.
  std::optional<std::string> header(std::string_view name) const;
  /// Of target and headers, for the bound on what is held.
  std::size_t head_bytes() const;
};

/// The path of a target, without its query, percent-decoding done. Nothing where a % begins no two
/// hex digits or the target is no path.
std::optional<std::string> path_of(std::string_view target);

/// Whether `path` is `base`, or lies below it.
bool is_below(std::string_view path, std::string_view base);

/// What method, path and headers say before the body is read.
std::optional<Refusal> check_head(const ReceivedRequest& request, std::string_view base_path);

/// What the body says: it is JSON where it is announced as such.
std::optional<Refusal> check_body(const ReceivedRequest& request);

/// How a request becomes an event.
struct EventRules {
  std::string id_scope;       ///< begins ids that clients gave, colon included; may be empty
  bool signed_ids = false;    ///< only webhook-id, which a signature covers, says the id
  std::string secret_header;  ///< in lower case: not passed on; may be empty
};

/// The id by what the request says: the header pgtrickle-id as it is, else Idempotency-Key or
/// webhook-id behind the scope. Empty: it says none.
std::string client_id(const ReceivedRequest& request, const EventRules& rules);

/// The record of a request; `new_id` is its id where neither the mapping nor the request gives one.
/// Copies into `arena`. Headers that carry secrets, or are of the connection only, are left out.
Record to_record(const ReceivedRequest& request, const EventRules& rules,
                 const FieldMapping& mapping, std::string_view new_id, Arena& arena);

}  // namespace relay::webhook
