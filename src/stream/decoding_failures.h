#pragma once

#include <cstdint>

#include "core/error.h"

namespace relay::stream {

/// Whether the server fails to decode the log of a slot at one place again and again. Decoding sees
/// the catalog as it was when the log was written, so what is mended later does not help there.
/// Pure.
class DecodingFailures {
 public:
  /// A session that reads the log has ended with `error`, when `last_n` was the number that was
  /// given last to a transaction.
  void add(const Error& error, std::int64_t last_n);
  bool hopeless() const { return count_ >= kEnough; }
  /// The slot was made anew.
  void forget() { count_ = 0; }

 private:
  static constexpr int kEnough = 10;
  int count_ = 0;
  std::int64_t last_n_ = 0;
};

}  // namespace relay::stream
