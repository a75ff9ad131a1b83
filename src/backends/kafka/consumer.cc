#include "backends/kafka/consumer.h"

#include <fmt/core.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>

#include "backends/kafka/errors.h"
#include "backends/kafka/partition_list.h"
#include "core/log.h"

namespace relay::kafka {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kCloseTime{2000};
constexpr int kProbeMs = 200;
constexpr int kAliveMs = 500;
constexpr int kAskMs = 500;

/// A broker answers within that time.
bool answers(rd_kafka_t* client, int time_ms) {
  const struct rd_kafka_metadata* metadata = nullptr;
  const auto code = rd_kafka_metadata(client, 0, nullptr, &metadata, time_ms);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) rd_kafka_metadata_destroy(metadata);
  return code == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/// The partitions that a member has, with this offset for each.
PartitionList list_of(const std::map<Place, std::int64_t>& positions,
                      std::int64_t offset = RD_KAFKA_OFFSET_INVALID) {
  PartitionList list = new_partition_list(positions.size());
  for (const auto& [place, position] : positions) add(*list, place).offset = offset;
  return list;
}

std::string_view text_of(const void* bytes, std::size_t size) {
  return {static_cast<const char*>(bytes), size};
}

}  // namespace

/// Called by the thread that polls.
struct Consumer::Callbacks {
  static void on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t code,
                           rd_kafka_topic_partition_list_t* partitions, void* opaque) {
    static_cast<Consumer*>(static_cast<ClientEvents*>(opaque)->owner)->rebalance(code, partitions);
  }
  static void on_commit(rd_kafka_t*, rd_kafka_resp_err_t code,
                        rd_kafka_topic_partition_list_t* offsets, void* opaque) {
    auto& commits = static_cast<Consumer*>(static_cast<ClientEvents*>(opaque)->owner)->commits_;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
      commits.committed(*offsets);
    } else {
      commits.failed(*offsets);
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR || code == RD_KAFKA_RESP_ERR__NO_OFFSET) return;
    // Costs a second delivery at worst: the next commit says the same and more.
    log::debug("kafka_commit", static_cast<ClientEvents*>(opaque)->pipeline, "{}",
               rd_kafka_err2str(code));
  }
};

void Consumer::Free::operator()(rd_kafka_t* client) const {
  stop_tokens(client);
  rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}
void Consumer::Free::operator()(rd_kafka_queue_t* queue) const {
  rd_kafka_queue_destroy(queue);
}
void Consumer::Free::operator()(rd_kafka_message_t* message) const {
  rd_kafka_message_destroy(message);
}

Result<std::unique_ptr<Consumer>> Consumer::open(const SourceOptions& options, Offsets& offsets,
                                                 std::set<Place> remade, Statistics& statistics,
                                                 std::stop_token stop) {
  std::unique_ptr<Consumer> consumer(new Consumer(options, offsets, std::move(remade), statistics));
  if (auto started = consumer->start(stop); !started) return fail(started.error());
  if (auto subscribed = consumer->subscribe(); !subscribed) return fail(subscribed.error());
  return consumer;
}

Result<void> Consumer::start(std::stop_token stop) {
  auto configuration = Configuration::make(options_.client, events_);
  if (!configuration) return fail(configuration.error());
  events_.owner = this;
  events_.statistics = &statistics_;
  rd_kafka_conf_set_rebalance_cb(configuration->get(), &Callbacks::on_rebalance);
  rd_kafka_conf_set_offset_commit_cb(configuration->get(), &Callbacks::on_commit);
  std::array<char, 512> text{};
  client_.reset(rd_kafka_new(RD_KAFKA_CONSUMER, configuration->get(), text.data(), text.size()));
  if (!client_) return fail(property_error("the source's options", text.data()));
  configuration->release();
  auto reached = wait_for_cluster(client_.get(), options_.client, events_,
                                  Deadline::after(options_.client.connect_timeout), stop);
  if (!reached) return reached;
  char* cluster = rd_kafka_clusterid(client_.get(), kProbeMs);
  if (cluster != nullptr) {
    cluster_ = cluster;
    rd_kafka_mem_free(client_.get(), cluster);
  }
  rd_kafka_poll_set_consumer(client_.get());
  queue_.reset(rd_kafka_queue_get_consumer(client_.get()));
  commits_.start(client_.get());
  return {};
}

Result<void> Consumer::subscribe() {
  const PartitionList topics = new_partition_list(options_.topics.size());
  for (const std::string& topic : options_.topics) {
    add(*topics, {topic, RD_KAFKA_PARTITION_UA});
  }
  const auto code = rd_kafka_subscribe(client_.get(), topics.get());
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  return fail(ErrorClass::misconfigured, "bad_topic",
              fmt::format("topic: {}", rd_kafka_err2str(code)),
              "name topics, or write a regular expression that begins with ^");
}

Consumer::~Consumer() {
  message_.reset();
  kept_.clear();
  if (!client_ || !queue_) return;
  // Where the cluster is away, the library's own close would wait for it.
  if (!answers(client_.get(), kAliveMs)) return;
  commits_.stop();
  if (rd_kafka_error_t* error = rd_kafka_consumer_close_queue(client_.get(), queue_.get())) {
    rd_kafka_error_destroy(error);
    return;
  }
  const Deadline until = Deadline::after(kCloseTime);
  while (!rd_kafka_consumer_closed(client_.get()) && !until.passed()) {
    if (rd_kafka_message_t* message = rd_kafka_consumer_poll(client_.get(), 10)) {
      rd_kafka_message_destroy(message);
    }
  }
}

void Consumer::rebalance(int code, rd_kafka_topic_partition_list_t* partitions) {
  const bool cooperative =
      rd_kafka_rebalance_protocol(client_.get()) == std::string_view("COOPERATIVE");
  const bool assigned = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
  log::debug("kafka_rebalance", options_.client.pipeline, "{} partitions {}", partitions->cnt,
             assigned ? "assigned" : "given up");
  last_position_ = nullptr;
  assigned_ = true;
  if (assigned) {
    take_over(*partitions);
  } else {
    give_up(*partitions);
  }
  if (cooperative) {
    rd_kafka_error_t* const error = assigned
                                        ? rd_kafka_incremental_assign(client_.get(), partitions)
                                        : rd_kafka_incremental_unassign(client_.get(), partitions);
    if (error != nullptr) rd_kafka_error_destroy(error);
  } else {
    rd_kafka_assign(client_.get(), assigned ? partitions : nullptr);
  }
}

void Consumer::take_over(rd_kafka_topic_partition_list_t& partitions) {
  for (int i = 0; i < partitions.cnt; ++i) {
    rd_kafka_topic_partition_t& entry = partitions.elems[i];
    positions_[{entry.topic, entry.partition}] = -1;
    if (from_start_.erase({entry.topic, entry.partition}) > 0) {
      entry.offset = RD_KAFKA_OFFSET_BEGINNING;
    }
    refusal_.reset();
  }
}

void Consumer::give_up(const rd_kafka_topic_partition_list_t& partitions) {
  commits_.flush();
  for (const auto& entry : elements(partitions)) {
    positions_.erase({entry.topic, entry.partition});
    bases_.erase({entry.topic, entry.partition});
    std::erase_if(kept_, [&](const auto& kept) {
      return kept->partition == entry.partition &&
             std::string_view(rd_kafka_topic_name(kept->rkt)) == entry.topic;
    });
    commits_.end({entry.topic, entry.partition});
    offsets_.give_up(entry.topic, entry.partition);
  }
}

Error Consumer::why_broken() const {
  const auto remade = commits_.remade();
  if (remade.empty()) return trouble_of(events_, options_.client.brokers);
  return {ErrorClass::transient,
          "topic_remade",
          fmt::format("the topic '{}' was deleted and made again", remade.begin()->first),
          "nothing is to be done: the new one is read from its start",
          {}};
}

Result<std::optional<Consumed>> Consumer::next(milliseconds time, std::stop_token stop) {
  message_.reset();
  if (paused_) resume();
  if (!kept_.empty()) {
    message_ = std::move(kept_.front());
    kept_.pop_front();
    return accept();
  }
  const auto wake = [this] { rd_kafka_queue_yield(queue_.get()); };
  if (time.count() > 0) {
    const std::stop_callback on_stop(stop, wake);
    if (!stop.stop_requested()) {
      message_.reset(rd_kafka_consumer_poll(client_.get(), static_cast<int>(time.count())));
    }
  } else {
    message_.reset(rd_kafka_consumer_poll(client_.get(), 0));
  }
  // Of another partition there may be more.
  if (message_ && message_->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    note_end(*message_);
    return next(milliseconds(0), std::move(stop));
  }
  return accept();
}

/// What a poll has brought.
Result<std::optional<Consumed>> Consumer::accept() {
  if (broken()) return fail(why_broken());
  if (!message_) return std::nullopt;
  if (message_->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
    note_error(*message_);
    return std::nullopt;
  }
  events_.trouble.reset();
  const Consumed found = view(*message_);
  note_position(*message_, found);
  if (!rdkafka_has_fetch_backoff()) keep_fetching(*message_);
  return found;
}

void Consumer::note_position(const rd_kafka_message_t& message, const Consumed& found) {
  if (last_position_ == nullptr || message.rkt != last_topic_ ||
      message.partition != last_partition_) {
    last_topic_ = message.rkt;
    last_partition_ = message.partition;
    last_position_ = &positions_[{std::string(found.topic), found.partition}];
    commits_.begin(found.topic, found.partition, found.offset);
  }
  *last_position_ = found.offset + 1;
}

/// The marks of transactions are behind the last record, and no records.
void Consumer::note_end(const rd_kafka_message_t& message) {
  const auto known = positions_.find({rd_kafka_topic_name(message.rkt), message.partition});
  if (known != positions_.end()) known->second = std::max(known->second, message.offset);
}

void Consumer::pause() {
  const PartitionList list = list_of(positions_);
  rd_kafka_pause_partitions(client_.get(), list.get());
  paused_ = true;
}

void Consumer::resume() {
  const PartitionList list = list_of(positions_);
  rd_kafka_resume_partitions(client_.get(), list.get());
  paused_ = false;
}

/// A member that does not poll for `max.poll.interval.ms` loses its partitions, and one that does
/// not poll keeps the whole group waiting when that shares them anew.
void Consumer::idle() {
  if (!paused_) pause();
  constexpr int kEvents = 100;
  for (int i = 0; i < kEvents; ++i) {
    Owned<rd_kafka_message_t> message(rd_kafka_consumer_poll(client_.get(), 0));
    if (!message) return;
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      note_end(*message);
    } else if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      note_error(*message);
    } else {
      // Of a partition that was assigned meanwhile.
      kept_.push_back(std::move(message));
      pause();
    }
  }
}

/// Once enough is fetched ahead, the library's threads rest for up to a second, however fast that
/// is taken; a request makes them look again. Its answer is not waited for.
void Consumer::keep_fetching(const rd_kafka_message_t& message) {
  bytes_since_reminder_ += message.len;
  ++records_since_reminder_;
  const bool much_taken =
      bytes_since_reminder_ >= kAheadBytes / 4 || records_since_reminder_ >= kAheadRecords / 4;
  if (!much_taken) return;
  bytes_since_reminder_ = records_since_reminder_ = 0;
  const PartitionList list = list_of(positions_, RD_KAFKA_OFFSET_END);
  rd_kafka_offsets_for_times(client_.get(), list.get(), 0);
}

void Consumer::note_error(const rd_kafka_message_t& message) {
  const char* said = rd_kafka_message_errstr(&message);
  Error error = cluster_error(message.err, said == nullptr ? "" : said, options_.client.brokers);
  if (error.error_class == ErrorClass::misconfigured) {
    if (error.code == "unknown_topic") error.remedy = "create the topic, or correct topic";
    refusal_ = std::move(error);
    return;
  }
  // The library goes on by itself.
  log::debug("kafka_consumer", options_.client.pipeline, "{}", error.message);
}

Consumed Consumer::view(const rd_kafka_message_t& message) const {
  Consumed found;
  found.topic = rd_kafka_topic_name(message.rkt);
  found.partition = message.partition;
  found.offset = message.offset;
  rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  found.timestamp_ms = rd_kafka_message_timestamp(&message, &type);
  if (message.key != nullptr) found.key = text_of(message.key, message.key_len);
  if (message.payload != nullptr) found.value = text_of(message.payload, message.len);
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return found;
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  for (std::size_t i = 0;
       rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
       ++i) {
    found.headers.emplace_back(name, text_of(value, value == nullptr ? 0 : size));
  }
  return found;
}

std::optional<Error> Consumer::trouble(Deadline until, std::stop_token stop) {
  if (refusal_) return refusal_;
  if (!events_.trouble) return std::nullopt;
  // The library does not say when a broker is back: the broker is asked.
  do {
    if (answers(client_.get(), kProbeMs)) {
      events_.trouble.reset();
      return std::nullopt;
    }
  } while (!until.passed() && !stop.stop_requested());
  return trouble_of(events_, options_.client.brokers);
}

/// What the cluster says; nothing where it does not answer soon. `which`: RD_KAFKA_OFFSET_END or
/// RD_KAFKA_OFFSET_BEGINNING.
std::optional<std::map<Place, std::int64_t>> Consumer::ask_offsets(std::int64_t which) {
  const PartitionList list = list_of(positions_, which);
  if (rd_kafka_offsets_for_times(client_.get(), list.get(), kAskMs) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return std::nullopt;
  }
  std::map<Place, std::int64_t> found;
  for (const auto& entry : elements(*list)) {
    if (entry.err != RD_KAFKA_RESP_ERR_NO_ERROR || entry.offset < 0) return std::nullopt;
    found[{entry.topic, entry.partition}] = entry.offset;
  }
  return found;
}

/// The ends of all partitions. While records are fetched, the library is told of them all the time.
std::optional<std::map<Place, std::int64_t>> Consumer::ends() {
  std::map<Place, std::int64_t> found;
  if (paused_ || events_.trouble) return ask_offsets(RD_KAFKA_OFFSET_END);
  for (const auto& [place, position] : positions_) {
    std::int64_t low = -1;
    std::int64_t high = -1;
    rd_kafka_get_watermark_offsets(client_.get(), place.first.c_str(), place.second, &low, &high);
    if (high < 0) return ask_offsets(RD_KAFKA_OFFSET_END);
    found[place] = high;
  }
  return found;
}

/// Where the reading of partitions began of which no record was read yet. False: the cluster does
/// not say.
bool Consumer::ask_bases() {
  const auto is_known = [&](const auto& entry) {
    return entry.second >= 0 || bases_.contains(entry.first);
  };
  if (std::ranges::all_of(positions_, is_known)) return true;
  const PartitionList list = list_of(positions_);
  if (rd_kafka_committed(client_.get(), list.get(), kAskMs) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return false;
  }
  const bool earliest = property(options_.client, "auto.offset.reset") == "earliest";
  const auto begins = ask_offsets(earliest ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END);
  if (!begins) return false;
  for (const auto& entry : elements(*list)) {
    if (entry.err != RD_KAFKA_RESP_ERR_NO_ERROR) return false;
    const Place place{entry.topic, entry.partition};
    bases_[place] = entry.offset >= 0 ? entry.offset : begins->at(place);
  }
  return true;
}

std::optional<std::int64_t> Consumer::lag() {
  if (!assigned_ || broken() || !ask_bases()) return std::nullopt;
  const auto last = ends();
  if (!last) return std::nullopt;
  std::int64_t sum = 0;
  for (const auto& [place, read_to] : positions_) {
    const std::int64_t settled = read_to >= 0 ? read_to : bases_.at(place);
    const auto first = offsets_.first_unsettled(place.first, place.second).value_or(settled);
    sum += std::max<std::int64_t>(0, last->at(place) - first);
  }
  return sum;
}

}  // namespace relay::kafka
