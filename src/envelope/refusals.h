#pragma once

#include <map>
#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::envelope {

/// Why records and rows cannot be sent. Messages that are refused for one reason share one error.
/// One thread at a time.
class Refusals {
 public:
  /// The table that errors name, until the next call; the text outlives this use.
  void start(std::string_view table) { table_ = table; }
  SharedError get(std::string_view code, std::string_view what, std::string_view remedy);

 private:
  std::string_view table_;
  std::map<std::string, SharedError> known_;  // by message
};

}  // namespace relay::envelope
