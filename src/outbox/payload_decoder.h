#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::outbox {

/// A payload of version 1, taken apart. Views point into the text that was decoded.
struct Payload {
  std::string_view inserted;  ///< a JSON array as it stands in the text; empty: no rows
  std::string_view deleted;   ///< the same
  std::string_view refresh_mode;
  std::int64_t refresh_duration_ms = -1;
  std::string_view key_columns;  ///< a JSON array of names; empty: those of the outbox
  bool full_refresh = false;
  bool claim_check = false;
};

/// Takes a payload apart without looking into its rows: what is inside them is checked by the
/// encoder, which slices them. Rejected: it is no payload, or of a version that is not known here.
Result<Payload> decode_payload(std::string_view text);

/// The texts of a JSON array of texts, as PostgreSQL writes it. False: it is none.
bool read_texts(std::string_view array, std::vector<std::string>& texts);

/// The text of a top-level value in a JSON object, as it stands there; empty: there is none. A name
/// is compared as it stands as well, escapes included.
std::string_view find_field(std::string_view object, std::string_view name);

}  // namespace relay::outbox
