#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "backends/webhook/options.h"
#include "core/message.h"
#include "http/client.h"

namespace relay::webhook {

/// The id of an array of messages: a hash of theirs, so that the same cut has the same id.
std::string batch_id(std::span<const Message> messages);

/// `webhook-signature` of Standard Webhooks: "v1,<base64>" for each key, separated by spaces.
std::string signature(std::span<const std::string> keys, std::string_view id,
                      std::int64_t timestamp, std::string_view body);

/// A message's id as `webhook-id`. What is signed is "<id>.<timestamp>.<body>", so Standard
/// Webhooks wants no dot in it: '.' is "%2E", and '%', to keep ids different that are, is "%25".
std::string webhook_id(std::string_view id);

/// The JSON array of the messages' bodies.
std::string array_of(std::span<const Message> messages);

/// Where a subject leads: an address, or a path behind `options.base`. Rejected: neither.
Result<std::string> address_of(std::string_view subject, const Options& options);

/// Why a message cannot be sent at all (an id that is no header value, a body that is no JSON where
/// it has to be part of an array, an address that is none); null: it can.
SharedError refusal(const Message& message, const Options& options);

/// A request with one message, or with several as an array; each passed `refusal`. `now` is in
/// seconds since 1970. The body of a single message is not copied.
http::Request make_request(std::span<const Message> messages, const Options& options,
                           std::int64_t now);

/// A request that asks what is at an address, with our credentials and without a message. What is
/// signed, where requests are, is the empty body.
http::Request make_probe(std::string_view method, const std::string& address,
                         const Options& options, std::int64_t now);

}  // namespace relay::webhook
