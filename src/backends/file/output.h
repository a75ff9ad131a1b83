#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "backends/file/options.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"

namespace relay::file {

/// What a system call said, by what can be done about it.
Error system_error(int number, std::string_view doing, std::string_view where);

/// Where lines go. One thread at a time.
class Output {
 public:
  virtual ~Output() = default;

  /// How many bytes of `bytes` are out now, and why it is not all of them.
  struct Written {
    std::size_t bytes = 0;
    SharedError error;
  };
  /// Never returns later than the deadline or a stop where the reader is slow.
  virtual Written write(std::string_view bytes, Deadline deadline, std::stop_token stop) = 0;

  /// Takes back the last `bytes` that were written. False: they are gone to a reader.
  virtual bool take_back(std::size_t bytes) = 0;

  /// What was written so far is safe.
  virtual Result<void> sync() = 0;

  /// Called before messages of `bytes` bytes are written: the moment to begin a new file. True: one
  /// was begun, and what was written before is safe.
  virtual Result<bool> prepare(std::size_t bytes, std::stop_token stop) = 0;

  /// True where nothing was written yet, so that a header belongs here.
  virtual bool is_new() const = 0;

  /// A pipe, terminal or device: opened again, it is still the same.
  virtual bool is_stream() const { return false; }
};

/// Opens what the options name: a regular file, or a pipe, terminal or device. Misconfigured: no
/// such directory, no permission. Transient: the disk is full, another process has the file.
/// `lease`: a pipe, which other instances may write to as well, is written to under it alone.
Result<std::unique_ptr<Output>> open_output(const Options& options, const Lease& lease,
                                            std::stop_token stop);

}  // namespace relay::file
