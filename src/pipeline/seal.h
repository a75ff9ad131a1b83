#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dead_letter.h"
#include "core/error.h"

namespace relay {

/// Takes the secrets of a pipeline's configuration out of its dead letters, and puts them back when
/// one is sent again: what is stored holds "${env:TOKEN}" where the message holds the token. A
/// secret that was changed meanwhile is put in as it is now. Immutable; any thread.
class Seal {
 public:
  struct Part {
    std::string name;  ///< "env:TOKEN", or the option that holds it: "headers.Authorization"
    std::string secret;
  };

  Seal() = default;
  /// Of parts with one name, and of those with one secret, the first counts.
  explicit Seal(std::vector<Part> parts);

  /// Replaces secrets in the subject and in the values of headers; nothing where there are none.
  void close(DeadLetter& letter) const;
  /// Undoes `close`. Rejected: it needs a secret that the configuration no longer has; the letter
  /// must not be sent.
  Result<void> open(DeadLetter& letter) const;

 private:
  /// Shorter secrets are replaced only where they are all of a header's value.
  static constexpr std::size_t kShortest = 4;

  const Part* part_at(std::string_view text, std::size_t at) const;
  bool has_secret(std::string_view text) const;
  std::string closed(std::string_view text) const;
  Result<std::string> opened(std::string_view text) const;

  std::vector<Part> parts_;  // the longest secret first
};

}  // namespace relay
