#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/message.h"

namespace relay {

/// A rejected message with everything that sending it again exactly takes.
struct DeadLetter {
  std::int64_t dlq_id = 0;  ///< its row, for one that was read back; 0 for a new one
  std::string message_id;
  std::string subject;
  std::string key;
  std::string op;
  std::string body;
  std::string content_type;
  std::string stream_table;
  std::vector<std::pair<std::string, std::string>> headers;
  std::int64_t outbox_id = 0;
  bool full_refresh = false;
  bool tombstone = false;
  bool sealed = false;  ///< subject and headers hold references in the place of secrets (Seal)
  int attempts = 1;
  /// What of its key lies before it, unresolved: nothing, only what is sent again as well, or more.
  enum class Follows { nothing, retried, unresolved };
  Follows follows = Follows::nothing;  ///< of one that was read back
  Error error;

  static DeadLetter from(const Message& message, Error error);
  /// A message whose views point into this object and into `headers`.
  Message to_message(std::vector<Header>& headers) const;
};

}  // namespace relay
