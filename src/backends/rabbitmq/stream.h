#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "backends/rabbitmq/notice.h"
#include "core/error.h"
#include "core/record.h"

namespace relay::rabbitmq {

/// A place in a stream, as a consumer asks for it.
struct StreamOffset {
  enum class Kind { first, offset, time };
  Kind kind = Kind::first;
  std::int64_t value = 0;  ///< the offset, or seconds since 1970

  friend bool operator==(const StreamOffset&, const StreamOffset&) = default;
};

/// Where a stream is read from that was never read before.
struct StreamStart {
  bool next = false;  ///< what is published from now on
  StreamOffset at;    ///< else
};

/// "first", "next", an offset, or a time ("2026-01-31T12:00:00Z"). Misconfigured: anything else.
Result<StreamStart> parse_stream_start(std::string_view text);

/// Tells one message from another one that has the same offset in another stream; a UUID.
std::string fingerprint(const Delivered& message);

/// How far a stream is settled, kept as a Position, and whether the stream that is there is the one
/// that was settled: a stream that was deleted and made again begins at offset 0 again, and a
/// broker does not say so. Therefore a consumer begins at the last message that was settled, and
/// the first message that arrives is the proof.
///
/// The position's `id` is the offset behind the last settled message (0: none is settled; negative:
/// none, and reading begins at that many seconds after 1970), its `row` counts how often the stream
/// was made again, and its `mark` is the fingerprint of the last settled message. Pure; one thread.
class StreamPlace {
 public:
  enum class Sight {
    wanted,      ///< to be delivered
    truncated,   ///< the same, but messages before it were deleted unread
    settled,     ///< it was settled before
    made_again,  ///< this is another stream
    look_again,  ///< the proof is to be looked for once more
  };

  /// What the broker says of the stream that is there.
  struct Extent {
    std::int64_t count = 0;             ///< messages, as it counts
    std::optional<std::int64_t> first;  ///< offset of the first message, where known
  };
  /// A consumer begins, with nothing unsettled. It never begins before the first message.
  StreamOffset attach(const Position& settled, const StreamStart& start, const Extent& extent);
  /// What arrived.
  Sight see(std::int64_t offset, const std::string& mark);
  /// How many messages, at most, were deleted before they were read, after `truncated`.
  std::int64_t missing() const { return missing_; }
  /// No proof has arrived yet.
  bool waits_for_proof() const { return expected_.id > 0 && !from_first_; }
  /// And none arrived for long: the next `attach` looks at what the stream has.
  void doubt() { doubted_ = true; }

  /// The record with this number is that message.
  void add(std::int64_t record, std::int64_t offset, std::string mark);
  /// Everything up to this record is settled; the position, where it moved.
  std::optional<Position> settle(std::int64_t record);
  /// The consumer is gone: what was not settled will come again.
  void forget() { open_.clear(); }
  std::int64_t generation() const { return generation_; }

 private:
  struct Read {
    std::int64_t record;
    std::int64_t offset;
    std::string mark;
  };
  Position expected_;  // id 0: nothing is to be proved
  std::int64_t generation_ = 0;
  std::int64_t count_ = 0;
  std::int64_t missing_ = 0;
  bool from_first_ = false;  // the consumer began at the beginning, not at the settled message
  bool doubted_ = false;
  std::deque<Read> open_;
};

/// The offset of the next message to deliver; null where it is known as a time only.
std::optional<std::int64_t> next_offset(const Position& settled, const StreamStart& start);

/// Where a stream that was made again is read from: its beginning.
Position made_again_after(const Position& settled);

/// The id of a message that has none: the same each time that it is read.
std::string stream_message_id(std::string_view id_scope, std::string_view queue,
                              std::int64_t offset, std::int64_t generation);

}  // namespace relay::rabbitmq
