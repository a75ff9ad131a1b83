#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/redis/options.h"
#include "core/error.h"
#include "core/message.h"

namespace relay::redis {

/// Writes messages as XADD commands. One thread at a time.
class EntryWriter {
 public:
  EntryWriter(FieldMode mode, std::optional<std::int64_t> maxlen);

  /// Appends the command that adds `message` to the stream of its subject. Nothing is appended on
  /// an error. Rejected: the message cannot be written in this mode. Misconfigured: no message of
  /// this pipeline can.
  Result<void> append(std::string& out, const Message& message);

 private:
  std::string_view field_name(std::string_view header);

  FieldMode mode_;
  std::string maxlen_;  // empty: none
  std::string name_;
  std::vector<std::pair<std::string, std::string>> columns_;
};

}  // namespace relay::redis
