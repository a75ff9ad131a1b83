#pragma once

#include <string>

#include "aws/credentials.h"

namespace relay::aws {

/// Which role to assume.
struct RoleRequest {
  std::string role_arn;
  std::string session_name;  ///< empty: one of ours
  std::string external_id;
  std::string region;  ///< whose token service is asked; empty: us-east-1
};

/// Temporary keys from AWS's Security Token Service, for a token of an identity provider (`file`),
/// or signed with other keys. `AWS_ENDPOINT_URL_STS` leads elsewhere.
Result<Granted> assume_with_web_identity(const RoleRequest& role, const std::string& file,
                                         const Surroundings& around);
Result<Granted> assume_role(const RoleRequest& role, const Credentials& keys,
                            const Surroundings& around);

/// The text of the first element of that name in an answer of the service; empty: none.
std::string xml_text(std::string_view xml, std::string_view name);

}  // namespace relay::aws
