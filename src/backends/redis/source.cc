#include "backends/redis/source.h"

#include <fmt/core.h>

#include <algorithm>

#include "backends/redis/errors.h"
#include "backends/redis/incarnation.h"
#include "core/log.h"
#include "core/stop_event.h"

namespace relay::redis {

using std::chrono::milliseconds;

namespace {

constexpr std::size_t kFirstCount = 16;  // while it is not known how large entries are
constexpr std::size_t kAcknowledgeAtOnce = 1000;
constexpr milliseconds kLagEvery{900};  // the pipeline asks once a second
constexpr int kKeepsWithin = 3;         // so often within `claim_idle`
constexpr std::size_t kKeptAtOnce = 1000;
constexpr std::size_t kCountPage = 1000;
constexpr std::size_t kCountBytes = 1u << 20;
constexpr milliseconds kCountTime{10};
constexpr std::string_view kEnd = "0-0";
constexpr int kNoStop = -1;  // poll ignores it
constexpr milliseconds kRemoveEveryLeast{1000};
constexpr milliseconds kRemoveEveryMost{300'000};
/// XGROUP DELCONSUMER drops the entries that a consumer holds. A script is atomic: no consumer is
/// given an entry between the look and the removal. It has one key, so a cluster takes it as well.
constexpr std::string_view kRemoveConsumers = R"(
local removed = {}
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.name ~= ARGV[2] and consumer.pending == 0 and consumer.idle > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed[#removed + 1] = consumer.name
  end
end
return removed)";

bool begins(const Reply& reply, std::string_view text) {
  return reply.is_error() && reply.text.starts_with(text);
}

}  // namespace

Result<void> RedisSource::open(std::stop_token stop) {
  const StopEvent stopped(std::move(stop));
  return connect(stopped.fd());
}

Result<void> RedisSource::connect(int stop_fd) {
  connection_.reset();
  auto connection = open_any(options_.connection, endpoints_, true, stop_fd);
  if (!connection) return fail(connection.error());
  connection_ = std::move(*connection);
  auto made = make_group(stop_fd);
  if (made) made = mark_stream(stop_fd);
  if (!made) {
    connection_.reset();
    return made;
  }
  // What was sent over the last connection and never arrived is among what this consumer holds.
  history_ = kEnd;
  claim_cursor_ = kEnd;
  claim_due_ = SteadyClock::now();
  return {};
}

Result<Reply> RedisSource::call(std::span<const std::string_view> command, int stop_fd,
                                milliseconds wait) {
  std::string bytes;
  append_command(bytes, command);
  std::vector<Reply> replies;
  connection_->start(bytes, 1);
  auto finished = connection_->finish(replies, Deadline::never(), stop_fd, wait);
  if (!finished) {
    connection_.reset();
    return fail(finished.error());
  }
  return std::move(replies.front());
}

/// A command that brings entries: what it brings is of the stream that `incarnation_` says, or not
/// handed on.
Result<Reply> RedisSource::call_marked(std::initializer_list<std::string_view> command, int stop_fd,
                                       milliseconds wait) {
  if (incarnation_.empty()) return call(command, stop_fd, wait);
  std::string bytes;
  append_command(bytes, command);
  append_command(bytes, {"XINFO", "GROUPS", options_.stream_key});
  std::vector<Reply> replies;
  connection_->start(bytes, 2);
  auto finished = connection_->finish(replies, Deadline::never(), stop_fd, wait);
  if (!finished) {
    connection_.reset();
    return fail(finished.error());
  }
  if (replies[0].is_error() || incarnation_in(replies[1]) == incarnation_) {
    return std::move(replies.front());
  }
  connection_.reset();
  return fail(ErrorClass::transient, "stream_remade",
              fmt::format("the stream '{}' was deleted and made again", options_.stream_key),
              "nothing is to be done: the new one is read");
}

/// Learns which stream it is that has the key, and gives it a mark where it has none.
Result<void> RedisSource::mark_stream(int stop_fd) {
  auto found = find_mark(stop_fd);
  if (!found) return fail(found.error());
  if (found->empty()) {
    auto made = call({"XGROUP", "CREATE", options_.stream_key, kIncarnationGroup,
                      new_incarnation_id(), "MKSTREAM"},
                     stop_fd);
    if (!made) return fail(made.error());
    // Of two relays that make it, one is first.
    if (!made->is_error() || begins(*made, "BUSYGROUP")) found = find_mark(stop_fd);
    if (!found) return fail(found.error());
  }
  if (found->empty()) {
    log::warn(
        "incarnation_unknown", options_.connection.pipeline,
        "ids of entries without pgtrickle_id do not tell the stream '{}' from one that is made "
        "again under this key: let the user run XGROUP CREATE and XINFO GROUPS",
        options_.stream_key);
  }
  if (*found != incarnation_) receipts_.clear();  // these entries are gone with their stream
  incarnation_ = std::move(*found);
  return {};
}

/// Empty: there is none, or the user may not see it.
Result<std::string> RedisSource::find_mark(int stop_fd) {
  const auto groups = call({"XINFO", "GROUPS", options_.stream_key}, stop_fd);
  if (!groups) return fail(groups.error());
  if (!groups->is_error()) return incarnation_in(*groups);
  if (begins(*groups, "NOPERM")) return std::string();
  return fail(refusal(groups->text, fmt::format("looking at '{}'", options_.stream_key),
                      connection_->address()));
}

Result<void> RedisSource::make_group(int stop_fd) {
  auto reply =
      call({"XGROUP", "CREATE", options_.stream_key, options_.group, options_.start, "MKSTREAM"},
           stop_fd);
  if (!reply) return fail(reply.error());
  if (!reply->is_error() || begins(*reply, "BUSYGROUP")) return {};
  Error error = refusal(reply->text, fmt::format("the group on '{}'", options_.stream_key),
                        connection_->address());
  // Whatever it is about this key, it is not about one message.
  if (error.error_class == ErrorClass::rejected || begins(*reply, "ERR Invalid stream ID")) {
    error.error_class = ErrorClass::misconfigured;
    error.remedy = "correct stream_key and start";
  }
  return fail(std::move(error));
}

/// As many entries as the limit on bytes has room for, if they are like the last ones.
std::size_t RedisSource::count_for(const ReadLimits& limits) const {
  const std::size_t most = std::min(options_.count, limits.records);
  if (largest_ == 0) return std::min(most, kFirstCount);
  return std::clamp<std::size_t>(limits.bytes / largest_, 1, most);
}

Result<RecordBatch> RedisSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  const StopEvent stopped(stop);
  if (!connection_) {
    if (auto connected = connect(stopped.fd()); !connected) return fail(connected.error());
  }
  RecordBatch batch;
  do {
    const std::size_t count = count_for(limits);
    const bool claims = !history_ && can_claim_ && SteadyClock::now() >= claim_due_;
    const auto read = claims ? claim_some(batch, count, stopped.fd())
                             : read_some(batch, count, wait_for(deadline), stopped.fd());
    if (!read && read.error().error_class == ErrorClass::cancelled) return RecordBatch();
    if (!read) return fail(read.error());
    look_after(stopped.fd());
  } while (connection_ && batch.empty() && !deadline.passed() && !stop.stop_requested());
  return batch;
}

/// How long the server may wait for an entry: no longer than until something else is due.
milliseconds RedisSource::wait_for(Deadline deadline) const {
  const auto left = deadline.left();
  if (!can_keep_ || receipts_.empty()) return left;
  return std::min(left, std::chrono::ceil<milliseconds>(keep_due_ - SteadyClock::now()));
}

milliseconds RedisSource::tend(std::stop_token stop) {
  const StopEvent stopped(std::move(stop));
  if (connection_ || connect(stopped.fd())) {
    look_after(stopped.fd());
  } else {
    lag_.reset();
  }
  return options_.claim_idle / kKeepsWithin;
}

/// What is due beside reading. A connection that broke is left for the next read to replace.
void RedisSource::look_after(int stop_fd) {
  if (can_keep_ && connection_ && SteadyClock::now() >= keep_due_) {
    keep_due_ = SteadyClock::now() + options_.claim_idle / kKeepsWithin;
    static_cast<void>(keep_ours(stop_fd));
  }
  if (can_remove_ && connection_ && SteadyClock::now() >= remove_due_) {
    remove_due_ = SteadyClock::now() +
                  std::clamp(options_.consumer_idle / 4, kRemoveEveryLeast, kRemoveEveryMost);
    static_cast<void>(remove_consumers(stop_fd));
  }
  if (SteadyClock::now() < lag_due_) return;
  if (!connection_ || !ask_lag(stop_fd)) lag_.reset();
}

/// Entries that wait here look idle to other consumers of the group, who would take them over. That
/// they are ours still is told without counting as a delivery.
Result<void> RedisSource::keep_ours(int stop_fd) {
  if (receipts_.empty()) return {};
  std::string begin = "-";
  while (can_keep_) {
    const auto more = keep_some(begin, stop_fd);
    if (!more) return fail(more.error());
    if (!*more) break;
  }
  return {};
}

/// Consumers of hosts that are gone stay in a group for ever, one for each pod that there ever was.
/// One that comes back is made anew with its first read.
Result<void> RedisSource::remove_consumers(int stop_fd) {
  if (options_.consumer_idle.count() == 0) return {};
  const auto idle = std::to_string(options_.consumer_idle.count());
  const auto reply = call(
      {"EVAL", kRemoveConsumers, "1", options_.stream_key, options_.group, options_.consumer, idle},
      stop_fd);
  if (!reply) return fail(reply.error());
  if (reply->is_error()) {
    can_remove_ = false;
    log::warn("cannot_remove_consumers", options_.connection.pipeline,
              "consumers that are gone stay in the group '{}' of '{}' (consumer_idle = 0 asks for "
              "that): {}",
              options_.group, options_.stream_key, reply->text);
  } else if (!reply->elements.empty()) {
    log::info(
        "consumers_removed", options_.connection.pipeline,
        "{} consumers of the group '{}' of '{}' did nothing for {} s, held no entry, and were "
        "removed, {} first",
        reply->elements.size(), options_.group, options_.stream_key,
        options_.consumer_idle.count() / 1000, reply->elements.front().text);
  }
  return {};
}

/// From `begin` on, which then is where to go on. False: there are no more.
Result<bool> RedisSource::keep_some(std::string& begin, int stop_fd) {
  const auto idle = std::to_string(options_.claim_idle.count() / (2 * kKeepsWithin));
  const auto most = std::to_string(kKeptAtOnce);
  auto pending = call({"XPENDING", options_.stream_key, options_.group, "IDLE", idle, begin, "+",
                       most, options_.consumer},
                      stop_fd);
  if (!pending) return fail(pending.error());
  if (!pending->is_array()) return cannot_keep(*pending);
  std::vector<std::string_view> command = {"XCLAIM", options_.stream_key, options_.group,
                                           options_.consumer, idle};
  const std::size_t words = command.size();
  for (const Reply& entry : pending->elements) {
    if (!entry.elements.empty() && receipts_.has(entry.elements[0].text)) {
      command.push_back(entry.elements[0].text);
    }
  }
  if (command.size() > words) {
    command.push_back("JUSTID");
    const auto claimed = call(command, stop_fd);
    if (!claimed) return fail(claimed.error());
    if (!claimed->is_array()) return cannot_keep(*claimed);
  }
  if (pending->elements.size() < kKeptAtOnce) return false;
  begin = "(" + pending->elements.back().elements[0].text;
  return true;
}

bool RedisSource::cannot_keep(const Reply& reply) {
  can_keep_ = false;
  log::warn("cannot_keep", options_.connection.pipeline,
            "other consumers of the group may take entries over that wait here for longer than "
            "their limit: {}",
            reply.text);
  return false;
}

Result<void> RedisSource::read_some(RecordBatch& batch, std::size_t count, milliseconds wait,
                                    int stop_fd) {
  // BLOCK 0 would wait for ever.
  wait = std::max(wait, milliseconds(1));
  const auto block = std::to_string(wait.count());
  const auto wanted = std::to_string(count);
  const std::string from = history_.value_or(">");
  auto reply = call_marked({"XREADGROUP", "GROUP", options_.group, options_.consumer, "COUNT",
                            wanted, "BLOCK", block, "STREAMS", options_.stream_key, from},
                           stop_fd, wait);
  if (!reply) return fail(reply.error());
  if (reply->is_error()) {
    Error error = refusal(reply->text, fmt::format("reading '{}'", options_.stream_key),
                          connection_->address());
    connection_.reset();  // the group, or the stream, may be gone: it is made again
    return fail(std::move(error));
  }
  std::string last;
  if (reply->is_array() && !reply->elements.empty() && reply->elements[0].elements.size() == 2) {
    last = add_entries(batch, reply->elements[0].elements[1]);
  }
  if (history_) {
    if (last.empty()) {
      history_.reset();
    } else {
      history_ = last;
    }
  }
  return {};
}

/// Takes over what other consumers have left lying.
Result<void> RedisSource::claim_some(RecordBatch& batch, std::size_t count, int stop_fd) {
  const auto idle = std::to_string(options_.claim_idle.count());
  const auto wanted = std::to_string(count);
  auto reply = call_marked({"XAUTOCLAIM", options_.stream_key, options_.group, options_.consumer,
                            idle, claim_cursor_, "COUNT", wanted},
                           stop_fd);
  if (!reply) return fail(reply.error());
  if (!reply->is_array() || reply->elements.size() < 2) {
    can_claim_ = false;
    log::warn("cannot_claim", options_.connection.pipeline,
              "entries of consumers that are gone are not taken over: {}", reply->text);
    return {};
  }
  add_entries(batch, reply->elements[1]);
  claim_cursor_ = reply->elements[0].text;
  if (claim_cursor_ == kEnd) claim_due_ = SteadyClock::now() + options_.claim_idle / 2;
  return {};
}

/// The id of the last entry; empty: there is none.
std::string RedisSource::add_entries(RecordBatch& batch, const Reply& entries) {
  std::vector<std::string> deleted;
  std::string last;
  for (const Reply& entry : entries.elements) {
    if (entry.elements.size() != 2) continue;
    last = entry.elements[0].text;
    if (entry.elements[1].is_array()) {
      add(batch, entry);
    } else {
      deleted.push_back(last);
    }
  }
  if (!deleted.empty()) {
    log::warn("entries_gone", options_.connection.pipeline,
              "{} entries of '{}' were trimmed or deleted before they were settled, from {} on",
              deleted.size(), options_.stream_key, deleted.front());
    for (const std::string& entry : deleted) {
      if (!connection_ || !call({"XACK", options_.stream_key, options_.group, entry}, kNoStop))
        break;
    }
  }
  return last;
}

void RedisSource::add(RecordBatch& batch, const Reply& reply) {
  const std::string& id = reply.elements[0].text;
  const std::int64_t number = receipts_.add(id);
  if (number == 0) return;  // under way already
  Entry entry{
      .stream_key = options_.stream_key, .id = id, .fields = {}, .incarnation = incarnation_};
  std::size_t size = 0;
  const auto& fields = reply.elements[1].elements;
  for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
    entry.fields.emplace_back(fields[i].text, fields[i + 1].text);
    size += fields[i].text.size() + fields[i + 1].text.size();
  }
  largest_ = std::max({size, largest_ - largest_ / 64, std::size_t{1}});
  if (!shape_) {
    shape_ = std::make_shared<const TableShape>(
        TableShape{.name = options_.stream_key, .key_columns = {}});
  }
  Record record = to_record(entry, rules_, mapping_, batch.arena);
  record.id = number;
  batch.add(std::move(record), shape_);
}

/// Entries that the group was not given yet, and those that it was given and has not acknowledged.
Result<void> RedisSource::ask_lag(int stop_fd) {
  lag_due_ = SteadyClock::now() + kLagEvery;
  lag_.reset();
  const auto reply = call({"XINFO", "GROUPS", options_.stream_key}, stop_fd);
  if (!reply) return fail(reply.error());
  for (const Reply& fields : reply->elements) {
    const auto group = GroupState::of(fields);
    if (!group || group->name != options_.group) continue;
    std::optional<std::int64_t> beyond = group->lag;
    if (!beyond) {
      auto counted = count_beyond(group->last_delivered, stop_fd);
      if (!counted) return fail(counted.error());
      beyond = *counted;
    }
    if (beyond) lag_ = *beyond + group->pending;
  }
  return {};
}

/// Counts where the server does not: before 7.0, and where entries were deleted that the group was
/// not given. In small steps, since entries are transferred for it; nothing until it is done.
Result<std::optional<std::int64_t>> RedisSource::count_beyond(const std::string& last_delivered,
                                                              int stop_fd) {
  beyond_.begin(last_delivered);
  const std::size_t page = std::clamp<std::size_t>(kCountBytes / std::max<std::size_t>(largest_, 1),
                                                   1, largest_ == 0 ? kFirstCount : kCountPage);
  const auto most = std::to_string(page);
  const Deadline until = Deadline::after(kCountTime);
  do {
    const auto entries =
        call({"XRANGE", options_.stream_key, beyond_.next(), "+", "COUNT", most}, stop_fd);
    if (!entries) return fail(entries.error());
    for (const Reply& entry : entries->elements) {
      if (!entry.elements.empty()) beyond_.add(entry.elements[0].text);
    }
    if (entries->elements.size() < page) return std::optional(beyond_.count());
  } while (!until.passed());
  return std::optional<std::int64_t>();
}

Result<void> RedisSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const auto entries = receipts_.settled(settled.id);
  if (entries.empty()) return {};
  for (std::size_t first = 0; first < entries.size(); first += kAcknowledgeAtOnce) {
    const auto some =
        std::span(entries).subspan(first, std::min(kAcknowledgeAtOnce, entries.size() - first));
    if (auto sent = send_acknowledgements(some); !sent) {
      ack_connection_.reset();
      return sent;
    }
  }
  receipts_.forget(settled.id);
  return {};
}

Result<void> RedisSource::send_acknowledgements(std::span<const std::string> entries) {
  if (!ack_connection_ || ack_connection_->stale()) {
    auto connection = open_any(options_.connection, ack_endpoints_, true, kNoStop);
    if (!connection) return fail(connection.error());
    ack_connection_ = std::move(*connection);
  }
  std::vector<std::string_view> command = {"XACK", options_.stream_key, options_.group};
  command.insert(command.end(), entries.begin(), entries.end());
  std::string bytes;
  append_command(bytes, command);
  std::vector<Reply> replies;
  ack_connection_->start(bytes, 1);
  if (auto done = ack_connection_->finish(replies, Deadline::never(), kNoStop); !done) return done;
  if (!replies.front().is_error()) return {};
  return fail(refusal(replies.front().text,
                      fmt::format("acknowledging entries of '{}'", options_.stream_key),
                      ack_connection_->address()));
}

void RedisSource::close() {
  connection_.reset();
  ack_connection_.reset();
  receipts_.clear();
}

}  // namespace relay::redis
