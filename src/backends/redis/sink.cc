#include "backends/redis/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <unordered_set>

#include "backends/redis/codec.h"
#include "backends/redis/entry.h"
#include "backends/redis/errors.h"
#include "core/stop_event.h"

namespace relay::redis {

namespace {

/// A chunk is sent and answered before the next one: of large messages fewer are enough.
constexpr std::size_t kMaxChunkBytes = 2u << 20;

std::string multi() {
  std::string command;
  append_command(command, {"MULTI"});
  return command;
}

const std::string kMulti = multi();

}  // namespace

/// Sends some messages over one connection, in chunks.
class RedisSink::Delivery {
 public:
  Delivery(Connection& connection, const SinkOptions& options, std::span<const Message> messages,
           std::span<Outcome> outcomes, const Lease& lease, Deadline deadline, int stop_fd)
      : connection_(connection),
        options_(options),
        writer_(options.field_mode, options.maxlen),
        messages_(messages),
        outcomes_(outcomes),
        lease_(lease),
        deadline_(deadline),
        stop_fd_(stop_fd) {}

  /// Writes an outcome for each message.
  void run() {
    Chunk sending, prepared;
    prepare(sending);
    while (!sending.messages.empty() && !failure_) {
      if (!lease_.holds()) {
        failure_ = share(lease_over());
        break;
      }
      connection_.start(sending.view(), sending.replies());
      prepare(prepared);  // while the server works
      std::vector<Reply> replies;
      const auto finished = connection_.finish(replies, deadline_, stop_fd_);
      if (!finished) failure_ = share(finished.error());
      settle(sending, replies);
      std::swap(sending, prepared);
    }
    give_up(sending);
    for (; next_ < messages_.size(); ++next_) outcomes_[next_] = Outcome::unknown(failure_);
  }

 private:
  struct Chunk {
    std::string bytes;                  // MULTI, commands, EXEC
    std::vector<std::size_t> messages;  // their indices
    bool transaction = false;

    std::string_view view() const {
      return transaction ? std::string_view(bytes) : std::string_view(bytes).substr(kMulti.size());
    }
    std::size_t replies() const { return messages.size() + (transaction ? 2 : 0); }
  };

  void prepare(Chunk& chunk) {
    chunk.bytes = kMulti;
    chunk.messages.clear();
    std::unordered_set<std::string_view> keys;
    bool key_again = false;
    while (next_ < messages_.size() && !misconfigured_ && has_room(chunk)) {
      const Message& message = messages_[next_];
      if (auto written = write(chunk.bytes, message); written) {
        chunk.messages.push_back(next_);
        key_again = key_again || !keys.insert(message.key).second;
      } else if (written.error().error_class == ErrorClass::rejected) {
        outcomes_[next_] = Outcome::rejected(share(std::move(written.error())));
      } else {
        misconfigured_ = share(std::move(written.error()));
        break;
      }
      ++next_;
    }
    // What cannot be written stops the delivery when everything before it is through.
    if (chunk.messages.empty() && misconfigured_) failure_ = misconfigured_;
    chunk.transaction = options_.ordered && key_again;
    if (chunk.transaction) append_command(chunk.bytes, {"EXEC"});
  }

  bool has_room(const Chunk& chunk) const {
    return chunk.messages.empty() ||
           (chunk.messages.size() < options_.max_in_flight && chunk.bytes.size() < kMaxChunkBytes);
  }

  Result<void> write(std::string& bytes, const Message& message) {
    if (const std::size_t limit = largest_body(); message.body.size() > limit) {
      return fail(ErrorClass::rejected, "too_large",
                  fmt::format("a body of {} bytes, and Redis at {} takes at most {}",
                              message.body.size(), connection_.address(), limit),
                  "raise proto-max-bulk-len of the server and max_message_bytes, or lower "
                  "delta_max_rows");
    }
    return writer_.append(bytes, message);
  }

  std::size_t largest_body() const {
    const std::size_t asked = connection_.max_argument();
    return asked == 0 ? options_.max_message_bytes : std::min(asked, options_.max_message_bytes);
  }

  void settle(const Chunk& chunk, std::span<const Reply> replies) {
    if (chunk.transaction && !replies.empty() && replies.size() == chunk.replies() &&
        replies.back().is_array() && replies.back().elements.size() == chunk.messages.size()) {
      replies = replies.back().elements;
    } else if (chunk.transaction) {
      settle_aborted(chunk, replies);
      return;
    }
    for (std::size_t i = 0; i < chunk.messages.size(); ++i) {
      const std::size_t message = chunk.messages[i];
      outcomes_[message] =
          i < replies.size() ? outcome(replies[i], message) : Outcome::unknown(failure_);
    }
  }

  /// Nothing of the transaction is known to be stored.
  void settle_aborted(const Chunk& chunk, std::span<const Reply> replies) {
    const auto culprit = std::ranges::find_if(replies, &Reply::is_error);
    if (culprit != replies.end()) {
      const auto place = static_cast<std::size_t>(culprit - replies.begin());
      const std::size_t which = std::clamp<std::size_t>(place, 1, chunk.messages.size()) - 1;
      failure_ = outcome(*culprit, chunk.messages[which]).error;
    } else if (!failure_) {
      failure_ = share({ErrorClass::transient,
                        "aborted",
                        fmt::format("Redis at {} did not run a transaction", connection_.address()),
                        "look at the server and its log",
                        {}});
    }
    give_up(chunk);
  }

  void give_up(const Chunk& chunk) {
    for (const std::size_t message : chunk.messages) {
      outcomes_[message] = Outcome::unknown(failure_);
    }
  }

  Outcome outcome(const Reply& reply, std::size_t message) {
    if (!reply.is_error()) return Outcome::delivered();
    auto error = share(refusal(reply.text, fmt::format("key '{}'", messages_[message].subject),
                               connection_.address()));
    if (error->error_class == ErrorClass::rejected) return Outcome::rejected(std::move(error));
    if (!failure_) failure_ = error;
    return Outcome::unknown(std::move(error));
  }

  Connection& connection_;
  const SinkOptions& options_;
  EntryWriter writer_;
  std::span<const Message> messages_;
  std::span<Outcome> outcomes_;
  const Lease& lease_;
  Deadline deadline_;
  int stop_fd_;
  std::size_t next_ = 0;  // the first message that no chunk has
  SharedError misconfigured_;
  SharedError failure_;  // why no further chunk is sent
};

Result<void> RedisSink::connect(int stop_fd) {
  connection_.reset();
  auto connection = open_any(options_.connection, endpoints_, true, stop_fd);
  if (!connection) return fail(connection.error());
  if (auto leased = (*connection)->end_with(lease()); !leased) return leased;
  connection_ = std::move(*connection);
  return {};
}

Result<void> RedisSink::open(std::stop_token stop) {
  const StopEvent stopped(stop);
  return connect(stopped.fd());
}

std::vector<Outcome> RedisSink::deliver(std::span<const Message> messages, Deadline deadline,
                                        std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size());
  const StopEvent stopped(stop);
  if (!connection_ || connection_->stale()) {
    if (auto connected = connect(stopped.fd()); !connected) {
      std::ranges::fill(outcomes, Outcome::unknown(share(connected.error())));
      return outcomes;
    }
  }
  const auto larger = [&](const Message& message) {
    const std::size_t limit = connection_->max_argument();
    return limit != 0 && message.body.size() > limit;
  };
  if (std::ranges::any_of(messages, larger)) {
    connection_->ask_max_argument(deadline, stopped.fd());
  }
  Delivery(*connection_, options_, messages, outcomes, lease(), deadline, stopped.fd()).run();
  return outcomes;
}

void RedisSink::close() {
  connection_.reset();
}

}  // namespace relay::redis
