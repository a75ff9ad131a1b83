#pragma once

#include <cstdint>
#include <string>

#include "backends/nats/ack_subject.h"
#include "connector/field_mapping.h"
#include "core/record.h"

struct __natsMsg;

namespace relay::nats {

/// How messages become events.
struct EventRules {
  std::string id_scope;  ///< begins ids that are of the stream only, with a colon; may be empty
  std::int64_t max_record_bytes = 32 << 20;
};

/// The event of one message of a stream, copied into `arena`; its `id` is for the caller to set.
/// `place`: what its reply subject says. Its id is what the mapping says, else the header
/// pgtrickle-id, else what its publisher called it (Nats-Msg-Id), else its place in the stream.
/// The last two are valid as long as that stream exists, so `stream_created_ns` is part of them.
Record to_record(__natsMsg* message, const AckSubject& place, std::int64_t stream_created_ns,
                 const EventRules& rules, const FieldMapping& mapping, Arena& arena);

}  // namespace relay::nats
