#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/deadline.h"

namespace relay::cli {

/// How far something that takes long has come: a line of standard error that is written over, and
/// wiped at the end. Shows nothing where standard error is no terminal, and nothing with --json.
class Progress {
 public:
  Progress(std::string what, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::int64_t done, std::int64_t of);

 private:
  const std::string what_;
  const bool shown_;
  SteadyClock::time_point last_{};
  bool drawn_ = false;
};

/// The line: "replaying [#####     ] 50% 500 of 1000", cut to the width.
std::string progress_line(std::string_view what, std::int64_t done, std::int64_t of,
                          std::size_t columns);

}  // namespace relay::cli
