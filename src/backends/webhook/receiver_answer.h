#pragma once

#include <string>
#include <string_view>

#include "http/server/service.h"

namespace relay::webhook {

/// Why a request is not taken, as the client reads it.
struct Refusal {
  int status = 400;
  std::string code;
  std::string message;
};

/// It cannot be committed now, and may be later.
Refusal not_now(std::string_view why);

/// What a client reads: JSON.
http::Answer committed();
/// `challenge` is for the header WWW-Authenticate; empty: none.
http::Answer refused(const Refusal& refusal, std::string_view challenge);

}  // namespace relay::webhook
