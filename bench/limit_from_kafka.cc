// The shortest way from a Kafka topic into an inbox that commits the offsets of what is committed.
//   limit_from_kafka INBOX_URL INBOX_TABLE BATCH COUNT BROKERS TOPIC
// The topic has one partition.
#include <librdkafka/rdkafka.h>

#include <initializer_list>
#include <utility>

#include "inbox_writer.h"

namespace {

rd_kafka_t* make_consumer(const char* brokers, const std::string& topic) {
  char text[512];
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  const std::string group = "limit-" + topic;
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, const char*>>{
           {"bootstrap.servers", brokers},
           {"group.id", group.c_str()},
           {"auto.offset.reset", "earliest"},
           {"enable.auto.commit", "false"}}) {
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK) {
      bench::die("configuring", text);
    }
  }
  rd_kafka_t* consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
  if (consumer == nullptr) bench::die("starting", text);
  rd_kafka_poll_set_consumer(consumer);
  rd_kafka_topic_partition_list_t* topics = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(topics, topic.c_str(), RD_KAFKA_PARTITION_UA);
  if (rd_kafka_subscribe(consumer, topics) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    bench::die("subscribing", topic.c_str());
  }
  rd_kafka_topic_partition_list_destroy(topics);
  return consumer;
}

std::string id_of(const rd_kafka_message_t* message) {
  rd_kafka_headers_t* headers = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
      rd_kafka_header_get_last(headers, "pgtrickle-id", &value, &size) !=
          RD_KAFKA_RESP_ERR_NO_ERROR) {
    bench::die("reading the id", "there is none");
  }
  return {static_cast<const char*>(value), size};
}

void commit(rd_kafka_t* consumer, const std::string& topic, std::int64_t next, int async) {
  rd_kafka_topic_partition_list_t* offsets = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(offsets, topic.c_str(), 0)->offset = next;
  const auto done = rd_kafka_commit(consumer, offsets, async);
  if (done != RD_KAFKA_RESP_ERR_NO_ERROR) bench::die("committing", rd_kafka_err2str(done));
  rd_kafka_topic_partition_list_destroy(offsets);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_from_kafka.cc");
  bench::InboxWriter writer(argv[1], argv[2], std::atoi(argv[3]));
  const std::string topic = argv[6];
  rd_kafka_t* const consumer = make_consumer(argv[5], topic);
  std::int64_t next = 0;
  for (long left = std::atol(argv[4]); left > 0;) {
    rd_kafka_message_t* const message = rd_kafka_consumer_poll(consumer, 1000);
    if (message == nullptr) continue;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      bench::die("consuming", rd_kafka_message_errstr(message));
    }
    const std::string id = id_of(message);
    writer.add(id, {static_cast<const char*>(message->key), message->key_len},
               {static_cast<const char*>(message->payload), message->len}, bench::headers_of(id));
    next = message->offset + 1;
    --left;
    rd_kafka_message_destroy(message);
    if (writer.full()) writer.send([&, next] { commit(consumer, topic, next, 1); });
  }
  writer.send([] {});
  writer.finish();
  commit(consumer, topic, next, 0);
  rd_kafka_consumer_close(consumer);
  rd_kafka_destroy(consumer);
  return 0;
}
