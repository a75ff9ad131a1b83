#pragma once

#include <string>
#include <string_view>

namespace relay::state {

/// The statements about one table of dead letters, which has the columns of pgtrickle.relay_dlq and
/// its unique index.
struct DeadLetterStatements {
  /// `table`: with its schema, as it stands in a statement.
  explicit DeadLetterStatements(std::string_view table);

  const std::string store;
  const std::string take;
  const std::string take_headers;
  const std::string resolve;
  const std::string fail_again;
  const std::string parked_keys;
};

/// Those about pgtrickle.relay_dlq.
const DeadLetterStatements& relay_dead_letters();

}  // namespace relay::state
