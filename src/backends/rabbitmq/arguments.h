#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

#include "config/tree.h"
#include "core/error.h"

namespace relay::rabbitmq {

/// An argument of a queue or an exchange has a type, and a broker refuses the wrong one.
using Argument = std::variant<bool, std::int64_t, double, std::string>;
using Arguments = std::map<std::string, Argument>;

/// What an option holds: numbers and booleans stay what they are. Misconfigured: a name that AMQP
/// cannot carry.
Result<Arguments> parse_arguments(const std::map<std::string, config::Node>& given);

}  // namespace relay::rabbitmq
