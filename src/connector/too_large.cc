#include "connector/too_large.h"

#include <fmt/core.h>

namespace relay {

SharedError too_large(std::string_view what, std::size_t bytes, std::int64_t max_record_bytes) {
  return share({ErrorClass::rejected,
                "too_large",
                fmt::format("{} has {} bytes, more than max_record_bytes ({})", what, bytes,
                            max_record_bytes),
                "raise max_record_bytes, and retry the dead letter",
                {}});
}

}  // namespace relay
