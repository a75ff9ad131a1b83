#pragma once

#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::cli {

/// What `check` found: each finding belongs to a pipeline, or to none. Secrets in it are masked.
class Findings {
 public:
  void good(std::string_view pipeline, std::string_view text);
  void bad(std::string_view pipeline, const Error& error);
  /// The pipeline works, but should be changed.
  void warn(std::string_view pipeline, const Error& warning);

  /// Adds the findings of another check at the end.
  void append(const Findings& more);

  /// kInvalidConfiguration if a problem will not go away without a change.
  int exit_code() const;
  void print(bool as_json) const;

 private:
  void add(std::string_view pipeline, std::string_view found, std::string_view remedy,
           std::string_view kind);

  int problems_ = 0;
  int warnings_ = 0;
  bool configuration_ = false;
  std::string text_;
  std::string json_;
};

}  // namespace relay::cli
