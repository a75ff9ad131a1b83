#pragma once

#include <string>

#include "aws/sigv4.h"
#include "config/option_table.h"

namespace relay::aws {

/// As whom a backend speaks to AWS, as far as its configuration says.
struct Identity {
  std::string region;   ///< empty: as the environment or the profile says
  std::string profile;  ///< empty: as the environment says
  Credentials keys;     ///< set where the configuration itself holds them
};

/// The options that every backend of AWS has.
inline constexpr config::Option<Identity> kIdentityOptions[] = {
    {{.name = "region",
      .meaning = "AWS region; the default is what the server's address, the environment or the "
                 "profile says"},
     config::fills<&Identity::region>},
    {{.name = "profile",
      .meaning = "profile of the shared credential files; the default is AWS_PROFILE"},
     config::fills<&Identity::profile>},
    {{.name = "access_key_id",
      .meaning = "access key; the default is the usual chain: environment, shared "
                 "files, web identity, container, instance",
      .secret = true},
     config::fills<&Identity::keys, &Credentials::access_key>},
    {{.name = "secret_access_key", .meaning = "secret of access_key_id", .secret = true},
     config::fills<&Identity::keys, &Credentials::secret_key>},
    {{.name = "session_token", .meaning = "token of temporary keys", .secret = true},
     config::fills<&Identity::keys, &Credentials::session_token>},
};

/// Misconfigured: half a key.
Result<void> check_identity(const Identity& identity);

}  // namespace relay::aws
