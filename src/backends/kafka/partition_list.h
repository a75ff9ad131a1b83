#pragma once

#include <librdkafka/rdkafka.h>

#include <cstddef>
#include <memory>
#include <span>

#include "backends/kafka/place.h"

namespace relay::kafka {

struct FreePartitionList {
  void operator()(rd_kafka_topic_partition_list_t* list) const {
    rd_kafka_topic_partition_list_destroy(list);
  }
};
/// The library's list of partitions, with an offset for each.
using PartitionList = std::unique_ptr<rd_kafka_topic_partition_list_t, FreePartitionList>;

inline PartitionList new_partition_list(std::size_t size) {
  return PartitionList(rd_kafka_topic_partition_list_new(static_cast<int>(size)));
}

inline rd_kafka_topic_partition_t& add(rd_kafka_topic_partition_list_t& list, const Place& place) {
  return *rd_kafka_topic_partition_list_add(&list, place.first.c_str(), place.second);
}

inline std::span<const rd_kafka_topic_partition_t> elements(
    const rd_kafka_topic_partition_list_t& list) {
  return {list.elems, static_cast<std::size_t>(list.cnt)};
}

}  // namespace relay::kafka
