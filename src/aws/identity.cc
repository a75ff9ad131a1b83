#include "aws/identity.h"

namespace relay::aws {

Result<void> check_identity(const Identity& identity) {
  if (identity.keys.access_key.empty() == identity.keys.secret_key.empty()) return {};
  return fail(misconfigured("half_a_key", "access_key_id and secret_access_key belong together",
                            "set both, or neither"));
}

}  // namespace relay::aws
