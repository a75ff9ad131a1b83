#pragma once

#include <bitset>
#include <span>
#include <string>

#include "core/error.h"

namespace relay::webhook {

/// A set of HTTP statuses, written as "200", "2xx", or several of these with commas.
class StatusSet {
 public:
  /// Misconfigured: anything else. `option` is the name by which the error calls it.
  static Result<StatusSet> parse(std::span<const std::string> texts, std::string_view option);

  bool contains(int status) const {
    return status >= 0 && status < 600 && statuses_.test(static_cast<std::size_t>(status));
  }

 private:
  std::bitset<600> statuses_;
};

/// What a status means for the message. The sets are asked in this order.
struct StatusRules {
  enum class Meaning { delivered, retry, misconfigured, pause, rejected };
  StatusSet success;
  StatusSet retry;
  StatusSet misconfigured;
  StatusSet pause;

  /// A redirection that no set names is a mistake in the url; any other status is the message's.
  Meaning of(int status) const;
};

}  // namespace relay::webhook
