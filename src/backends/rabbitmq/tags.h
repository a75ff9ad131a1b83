#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

namespace relay::rabbitmq {

/// Which delivery tag each record that was read and not settled has; records are numbered 1, 2, ...
/// over all connections, tags begin anew with each of them. Pure; one thread.
class Tags {
 public:
  /// The next record came with this tag; its number.
  std::int64_t add(std::uint64_t tag);
  /// Everything up to this record is settled: the tag up to which the broker may be told so. Null:
  /// none of the connection that is there now.
  std::optional<std::uint64_t> settle(std::int64_t record);
  /// How many records are not settled.
  std::size_t size() const { return open_.size(); }
  /// The connection is gone: what was not settled will come again, with other tags.
  void forget();

 private:
  struct Read {
    std::int64_t record;
    std::uint64_t tag;
  };
  std::int64_t last_record_ = 0;
  std::deque<Read> open_;
};

}  // namespace relay::rabbitmq
