#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "backends/webhook/receiver_answer.h"
#include "backends/webhook/receiver_auth_kind.h"
#include "connector/field_mapping.h"
#include "core/arena.h"
#include "core/record.h"
#include "http/server/request.h"

namespace relay::webhook {

using ReceivedRequest = http::IncomingRequest;

/// The path of a target, without its query, percent-decoding done. Nothing where a % begins no two
/// hex digits or the target is no path.
std::optional<std::string> path_of(std::string_view target);

/// Whether `path` is `base`, or lies below it.
bool is_below(std::string_view path, std::string_view base);

/// What method, path and headers say before the body is read.
std::optional<Refusal> check_head(const ReceivedRequest& request, std::string_view base_path);

/// The value of a header as text, without blanks around it. Empty where there is none.
std::string header_text(const ReceivedRequest& request, std::string_view name);

/// What the body says: it is JSON where it is announced as such.
std::optional<Refusal> check_body(const ReceivedRequest& request);

/// How a request becomes an event.
struct EventRules {
  std::string id_scope;       ///< begins ids that clients gave, colon included; may be empty
  AuthKind auth{};            ///< whether a provider sends, and which headers a signature covers
  std::string secret_header;  ///< in lower case: not passed on; may be empty
};

/// The record of a request. Its id is what the mapping says, else what the provider says; of other
/// clients the header pgtrickle-id as it is, else Idempotency-Key or webhook-id behind the scope;
/// else `new_id`.
/// Copies into `arena`. Headers that carry secrets, or are of the connection only, are left out.
Record to_record(const ReceivedRequest& request, const EventRules& rules,
                 const FieldMapping& mapping, std::string_view new_id, Arena& arena);

}  // namespace relay::webhook
