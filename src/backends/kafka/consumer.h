#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include "backends/kafka/client.h"
#include "backends/kafka/commits.h"
#include "backends/kafka/event.h"
#include "backends/kafka/offsets.h"
#include "backends/kafka/options.h"
#include "core/deadline.h"
#include "core/error.h"

struct rd_kafka_message_s;
struct rd_kafka_queue_s;
struct rd_kafka_topic_partition_list_s;

namespace relay::kafka {

/// One member of a consumer group. `store` may be called by any thread; all else by one.
class Consumer {
 public:
  /// Connects and joins the group. `offsets` is told of partitions that are given up; `remade` are
  /// partitions to be read from their start.
  static Result<std::unique_ptr<Consumer>> open(const SourceOptions& options, Offsets& offsets,
                                                std::set<Place> remade, Statistics& statistics,
                                                std::stop_token stop);
  /// Commits what is settled and leaves, within a moment.
  ~Consumer();
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;

  /// Waits for the next record, at most that long; nothing when there is none. What it gives is
  /// valid until the next call. An error: see `trouble`.
  Result<std::optional<Consumed>> next(std::chrono::milliseconds time, std::stop_token stop);

  /// Stays in the group while nothing is asked for: fetching pauses until the next call of `next`.
  void idle();

  /// These offsets may be committed, which happens within a moment.
  void store(std::span<const Offsets::Next> offsets) { commits_.settled(offsets); }

  /// Why nothing can be read, as far as it is known now; asks the cluster where something was heard
  /// before, for at most that long.
  std::optional<Error> trouble(Deadline until, std::stop_token stop);

  /// Nothing can be read any more.
  bool broken() const { return events_.fatal || commits_.any_remade(); }
  /// Partitions whose topic was deleted and made again.
  std::set<Place> remade() const { return commits_.remade(); }
  const std::string& cluster() const { return cluster_; }
  /// Offsets between the ends of the partitions that are ours and what is settled of them. Asks the
  /// cluster where the library has not heard of it of late. Nothing where it does not answer, and
  /// before the group has assigned anything.
  std::optional<std::int64_t> lag();

 private:
  struct Free {
    void operator()(rd_kafka_s* client) const;
    void operator()(rd_kafka_queue_s* queue) const;
    void operator()(rd_kafka_message_s* message) const;
  };
  template <class T>
  using Owned = std::unique_ptr<T, Free>;
  struct Callbacks;

  Consumer(const SourceOptions& options, Offsets& offsets, std::set<Place> remade,
           Statistics& statistics)
      : options_(options),
        offsets_(offsets),
        statistics_(statistics),
        from_start_(std::move(remade)) {}
  Result<void> start(std::stop_token stop);
  Result<void> subscribe();
  void pause();
  void resume();
  Result<std::optional<Consumed>> accept();
  void note_end(const rd_kafka_message_s& message);
  std::optional<std::map<Place, std::int64_t>> ask_offsets(std::int64_t which);
  std::optional<std::map<Place, std::int64_t>> ends();
  bool ask_bases();
  void rebalance(int code, rd_kafka_topic_partition_list_s* partitions);
  void take_over(rd_kafka_topic_partition_list_s& partitions);
  void give_up(const rd_kafka_topic_partition_list_s& partitions);
  Error why_broken() const;
  void note_position(const rd_kafka_message_s& message, const Consumed& found);
  void keep_fetching(const rd_kafka_message_s& message);
  void note_error(const rd_kafka_message_s& message);
  Consumed view(const rd_kafka_message_s& message) const;

  const SourceOptions& options_;
  Offsets& offsets_;
  Statistics& statistics_;
  std::set<Place> from_start_;
  ClientEvents events_;
  std::optional<Error> refusal_;  // a topic or the group is not ours to read, or not there
  std::string cluster_;
  bool assigned_ = false;                    // the group has spoken
  std::map<Place, std::int64_t> positions_;  // of what is assigned: behind the last record read
  std::map<Place, std::int64_t> bases_;      // where reading began, of what gave no record yet
  // The place of the last record, so that it is not looked for each time.
  const void* last_topic_ = nullptr;
  std::int32_t last_partition_ = 0;
  std::int64_t* last_position_ = nullptr;
  std::size_t bytes_since_reminder_ = 0;  // see keep_fetching
  std::size_t records_since_reminder_ = 0;
  Owned<rd_kafka_s> client_;  // behind what its callbacks write to
  Owned<rd_kafka_queue_s> queue_;
  Owned<rd_kafka_message_s> message_;
  Commits commits_;
  bool paused_ = false;
  std::deque<Owned<rd_kafka_message_s>> kept_;  // came while nothing was asked for
};

}  // namespace relay::kafka
