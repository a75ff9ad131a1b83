#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "backends/kafka/offsets.h"
#include "backends/kafka/place.h"
#include "core/deadline.h"
#include "core/mutex.h"

struct rd_kafka_s;
struct rd_kafka_topic_partition_list_s;

namespace relay::kafka {

/// Commits the offsets of one member of a group, within a tenth of a second, and notices a topic
/// that was deleted and made again: brokers forget a group's offsets with the topic. The library
/// does not notice, and would go on in the new topic behind as many records as it has read of the
/// old one. So nothing is committed before the broker has said that it still knows the last commit,
/// and an idle member asks every few seconds. Any thread.
class Commits {
 public:
  Commits() = default;
  /// Nothing more is committed.
  ~Commits() = default;
  Commits(const Commits&) = delete;
  Commits& operator=(const Commits&) = delete;

  void start(rd_kafka_s* client);
  /// Commits what is due, and nothing more after that.
  void stop();

  /// The first record that is read of a partition: reading begins there until it is settled.
  void begin(std::string_view topic, std::int32_t partition, std::int64_t offset);
  /// These offsets may be committed; of partitions that were not begun, or were ended, none is.
  void settled(std::span<const Offsets::Next> offsets);
  /// Commits what is due.
  void flush();
  /// The broker took this.
  void committed(const rd_kafka_topic_partition_list_s& offsets);
  /// The broker refused this, or did not answer.
  void failed(const rd_kafka_topic_partition_list_s& offsets);
  /// The partition is not ours any more.
  void end(const Place& place);

  /// Partitions of topics that were made again: this member is of no use any more, and the next one
  /// begins at their start.
  std::set<Place> remade() const;
  bool any_remade() const { return any_remade_; }

 private:
  struct Partition {
    std::int64_t next = 0;        // what may be committed
    std::int64_t committed = -1;  // what the broker has; -1: nothing, as far as it is known
    bool sent = false;            // a commit, which the broker has not refused
  };

  void keep(std::stop_token stop);
  bool due() const RELAY_REQUIRES(mutex_);
  void commit() RELAY_REQUIRES(committing_);

  rd_kafka_s* client_ = nullptr;
  Mutex committing_;  // one commit() at a time
  mutable Mutex mutex_;
  std::map<Place, Partition> partitions_ RELAY_GUARDED_BY(mutex_);
  std::set<Place> remade_ RELAY_GUARDED_BY(mutex_);
  std::atomic<bool> any_remade_ = false;
  SteadyClock::time_point look_due_ RELAY_GUARDED_BY(mutex_){};
  std::jthread keeper_;
};

}  // namespace relay::kafka
