#pragma once

#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/file/options.h"
#include "backends/file/output.h"
#include "connector/sink.h"

namespace relay::file {

/// Writes messages, one after the other, to standard output or a file. Delivered means written, and
/// on the disk where `fsync` is on. A message is there whole or not at all: what a failed write
/// left of one is taken back, so that sending it again neither tears nor doubles it. Where bytes
/// cannot be taken back (a pipe), the rest of that message is written first, the next time.
class FileSink : public Sink {
 public:
  explicit FileSink(Options options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  class Delivery;

  const Options options_;
  std::unique_ptr<Output> output_;
  bool stream_begun_ = false;
  // A message of which a pipe took only the beginning: its id, and the bytes that are missing.
  std::string torn_id_;
  std::string torn_rest_;
};

}  // namespace relay::file
