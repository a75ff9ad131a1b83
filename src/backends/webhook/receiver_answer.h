#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
struct Answer {
  int status = 200;
  std::string body;
  std::vector<std::pair<std::string_view, std::string>> headers;
};

Answer committed();
/// `challenge` is for the header WWW-Authenticate; empty: none.
Answer refused(const Refusal& refusal, std::string_view challenge);

}  // namespace relay::webhook
