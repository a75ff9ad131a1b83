#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "connector/field_mapping.h"
#include "connector/header_object.h"
#include "core/arena.h"
#include "core/record.h"

namespace relay {

/// Makes the record of one message that a source received. The source says where its broker keeps
/// each part; this class applies the field mapping, the header in which a relay or a publisher
/// carries the part, and the source's own default, in this order. A header that is empty counts as
/// absent.
///
/// The message's own key becomes the event's key unless the mapping names another one. Everything
/// is copied into the arena, except a payload that is in it already. Used once, by one thread; the
/// message's parts must live until `record`.
class InboundEvent {
 public:
  InboundEvent(const FieldMapping& mapping, const MappedMessage& message, Arena& arena);

  /// The id. `own` is called only where neither the mapping nor `header` gives one; an empty
  /// `header` is not looked for. Returns the id, which lives in the arena.
  template <std::invocable Own>
  std::string_view set_id(std::string_view header, Own&& own) {
    auto given = mapping_.id(message_);
    if (!given) given = carried(header);
    return event_.id = given ? arena_.copy(*given) : arena_.copy(own());
  }

  /// The type, in the same way.
  template <std::invocable Own>
  void set_type(std::string_view header, Own&& own) {
    auto given = mapping_.event_type(message_);
    if (!given) given = carried(header);
    event_.type = given ? arena_.copy(*given) : arena_.copy(own());
  }

  /// The payload, and its content type (empty: the source does not know it).
  void set_payload(std::string_view payload, std::string_view content_type);
  /// A payload that is in the arena already.
  void set_payload_in_arena(std::string_view payload, std::string_view content_type);

  /// The record is refused where its payload is larger. `what` names the message for the error and
  /// is called only then: "the entry 1-0 of 'orders'".
  template <std::invocable What>
  void limit_payload(std::int64_t max_record_bytes, What&& what) {
    if (event_.payload.size() > static_cast<std::size_t>(max_record_bytes)) {
      refuse(what(), max_record_bytes);
    }
  }

  void add_header(std::string_view name, std::string_view value) { headers_.add(name, value); }
  void set_created_at(Timestamp time) { record_.created_at = time; }

  /// The record; its `id`, the source's number for it, is for the caller to set.
  Record record() &&;

 private:
  std::optional<std::string> carried(std::string_view header) const;
  void refuse(std::string_view what, std::int64_t max_record_bytes);

  const FieldMapping& mapping_;
  const MappedMessage& message_;
  Arena& arena_;
  HeaderObject headers_;
  Record record_;
  Event& event_;  // record_'s
};

}  // namespace relay
