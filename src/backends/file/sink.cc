#include "backends/file/sink.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "backends/file/format.h"

namespace relay::file {

namespace {

constexpr std::size_t kChunkBytes = 256 * 1024;

SharedError not_written() {
  static const auto error =
      share(Error{ErrorClass::transient, "not_written", "not written yet", {}, {}});
  return error;
}

}  // namespace

/// One call of `deliver`.
class FileSink::Delivery {
 public:
  Delivery(FileSink& sink, std::span<const Message> messages, Deadline deadline,
           std::stop_token stop)
      : sink_(sink),
        messages_(messages),
        deadline_(deadline),
        stop_(std::move(stop)),
        outcomes_(messages.size(), Outcome::unknown(not_written())),
        chunk_limit_(chunk_limit(sink.options_)) {}

  std::vector<Outcome> run() {
    SharedError error = finish_torn();
    for (std::size_t i = 0; !error && i < messages_.size(); ++i) {
      if (!sink_.torn_id_.empty() && messages_[i].id == sink_.torn_id_) {
        outcomes_[i] = Outcome::delivered();
        continue;
      }
      const std::size_t before = text_.size();
      if (auto appended = append_message(text_, sink_.options_.format, messages_[i]); !appended) {
        outcomes_[i] = Outcome::rejected(std::make_shared<Error>(std::move(appended.error())));
        continue;
      }
      if (before > 0 && text_.size() > chunk_limit_) {
        const std::string last = text_.substr(before);
        text_.resize(before);
        error = write();
        text_ = last;
      }
      ends_.push_back({i, text_.size()});
    }
    if (!error && !text_.empty()) error = write();
    if (auto unsafe = sync(); unsafe && !error) error = unsafe;
    if (error) settle_failure(error);
    if (sink_.torn_rest_.empty()) sink_.torn_id_.clear();
    return std::move(outcomes_);
  }

 private:
  struct End {
    std::size_t message;
    std::size_t at;  // where it ends in the chunk
  };

  static std::size_t chunk_limit(const Options& options) {
    if (options.rotate_bytes <= 0) return kChunkBytes;
    return std::clamp<std::size_t>(static_cast<std::size_t>(options.rotate_bytes) / 16, 1,
                                   kChunkBytes);
  }

  /// Writes what a pipe did not take of a message, before anything else.
  SharedError finish_torn() {
    auto& rest = sink_.torn_rest_;
    if (rest.empty()) return nullptr;
    const auto written = sink_.output_->write(rest, deadline_, stop_);
    rest.erase(0, written.bytes);
    if (reader_is_gone(written.error)) forget_torn();
    return written.error;
  }

  static bool reader_is_gone(const SharedError& error) {
    return error && error->error_class != ErrorClass::cancelled && error->code != "slow_reader" &&
           error->code != "lease_over";
  }

  void forget_torn() {
    sink_.torn_rest_.clear();
    sink_.torn_id_.clear();
  }

  /// Writes the chunk and empties it.
  SharedError write() {
    if (!sink_.lease().holds()) return share(lease_over());
    const auto begun = sink_.output_->prepare(text_.size(), stop_);
    if (!begun) return std::make_shared<Error>(begun.error());
    if (*begun) all_is_safe();
    const std::size_t header = add_header();
    const auto written = sink_.output_->write(text_, deadline_, stop_);
    std::size_t whole = written.bytes < header ? 0 : header;
    std::size_t count = 0;
    for (; count < ends_.size() && header + ends_[count].at <= written.bytes; ++count) {
      whole = header + ends_[count].at;
      outcomes_[ends_[count].message] = Outcome::delivered();
      unsafe_.push_back(ends_[count].message);
    }
    unsafe_bytes_ += whole;
    if (written.error && written.bytes > whole) handle_torn(header, count, whole, written);
    text_.clear();
    ends_.clear();
    return written.error;
  }

  std::size_t add_header() {
    if (!sink_.output_->is_new()) return 0;
    if (sink_.output_->is_stream() && std::exchange(sink_.stream_begun_, true)) return 0;
    const auto header = header_of(sink_.options_.format);
    text_.insert(0, header);
    return header.size();
  }

  void handle_torn(std::size_t header, std::size_t next, std::size_t whole,
                   const Output::Written& written) {
    if (sink_.output_->take_back(written.bytes - whole)) return;
    if (reader_is_gone(written.error)) {
      sync();
      sink_.output_.reset();  // a file is cut to whole messages when it is opened again
      return;
    }
    const bool in_header = written.bytes < header;
    const std::size_t end = in_header ? header : header + ends_[next].at;
    sink_.torn_rest_ = text_.substr(written.bytes, end - written.bytes);
    if (!in_header) sink_.torn_id_ = messages_[ends_[next].message].id;
  }

  /// What was written counts when it is safe. What is not is taken back: after a failed sync it is
  /// not known what the disk has of it.
  SharedError sync() {
    if (unsafe_.empty() || !sink_.output_) return nullptr;
    auto synced = sink_.output_->sync();
    if (synced) {
      all_is_safe();
      return nullptr;
    }
    const auto error = std::make_shared<Error>(std::move(synced.error()));
    sink_.output_->take_back(unsafe_bytes_);
    sink_.output_.reset();
    for (const std::size_t message : unsafe_) outcomes_[message] = Outcome::unknown(error);
    return error;
  }

  void all_is_safe() {
    unsafe_.clear();
    unsafe_bytes_ = 0;
  }

  void settle_failure(const SharedError& error) {
    for (Outcome& outcome : outcomes_) {
      if (outcome.kind == Outcome::Kind::unknown) outcome.error = error;
    }
  }

  FileSink& sink_;
  std::span<const Message> messages_;
  Deadline deadline_;
  std::stop_token stop_;
  std::vector<Outcome> outcomes_;
  std::size_t chunk_limit_;
  std::string text_;                 // the chunk
  std::vector<End> ends_;            // of the messages in it
  std::vector<std::size_t> unsafe_;  // written since the last sync
  std::size_t unsafe_bytes_ = 0;
};

Result<void> FileSink::open(std::stop_token stop) {
  auto output = open_output(options_, lease(), stop);
  if (!output) return fail(output.error());
  output_ = std::move(*output);
  return {};
}

std::vector<Outcome> FileSink::deliver(std::span<const Message> messages, Deadline deadline,
                                       std::stop_token stop) {
  if (!output_) {
    if (auto opened = open(stop); !opened) {
      const auto error = std::make_shared<Error>(std::move(opened.error()));
      return std::vector<Outcome>(messages.size(), Outcome::unknown(error));
    }
  }
  return Delivery(*this, messages, deadline, std::move(stop)).run();
}

void FileSink::close() {
  output_.reset();
}

}  // namespace relay::file
