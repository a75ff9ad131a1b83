#pragma once

#include <string>
#include <string_view>

namespace relay::rabbitmq {

/// The first half of the text's SHA-256, written as a UUID.
std::string digest_uuid(std::string_view text);

}  // namespace relay::rabbitmq
