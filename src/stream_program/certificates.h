#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::stream_program {

/// Certificates that are given as text, where libpq wants a file: it is in memory, and ends with
/// this object.
class Certificates {
 public:
  static Result<std::shared_ptr<const Certificates>> make(std::string_view pem);
  ~Certificates();
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit Certificates(int file);
  const int file_;
  const std::string path_;
};

}  // namespace relay::stream_program
