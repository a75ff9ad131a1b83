// The shortest way from an outbox to a Kafka topic that notices each acknowledgement.
//   limit_kafka POSTGRES_URL OUTBOX_TABLE BATCH BROKERS TOPIC ID_PREFIX
#include <librdkafka/rdkafka.h>

#include <cstring>
#include <initializer_list>
#include <utility>

#include "outbox_reader.h"

namespace {

long refused = 0;

void on_report(rd_kafka_t*, const rd_kafka_message_t* message, void*) {
  if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) ++refused;
}

rd_kafka_t* make_producer(const char* brokers) {
  char text[512];
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, const char*>>{
           {"bootstrap.servers", brokers},
           {"enable.idempotence", "true"},
           {"compression.type", "lz4"},
           {"linger.ms", "5"},
           {"partitioner", "murmur2_random"}}) {
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK) {
      bench::die("configuring", text);
    }
  }
  rd_kafka_conf_set_dr_msg_cb(conf, &on_report);
  rd_kafka_t* producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
  if (producer == nullptr) bench::die("starting", text);
  return producer;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_kafka.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  rd_kafka_t* producer = make_producer(argv[4]);
  rd_kafka_topic_t* topic = rd_kafka_topic_new(producer, argv[5], nullptr);
  const auto send = [&](const char* id, const char* payload, int length) {
    const std::string message_id = std::string(argv[6]) + ":" + id;
    while (true) {
      const auto result = rd_kafka_producev(
          producer, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_KEY(argv[2], std::strlen(argv[2])),
          RD_KAFKA_V_VALUE(const_cast<char*>(payload), static_cast<std::size_t>(length)),
          RD_KAFKA_V_HEADER(bench::kIdHeader, message_id.data(),
                            static_cast<ssize_t>(message_id.size())),
          RD_KAFKA_V_HEADER(bench::kTableHeader, bench::kTable, -1),
          RD_KAFKA_V_HEADER(bench::kOpHeader, bench::kOp, -1),
          RD_KAFKA_V_HEADER(bench::kOutboxIdHeader, id, -1),
          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
      if (result == RD_KAFKA_RESP_ERR_NO_ERROR) break;
      if (result != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        bench::die("producing", rd_kafka_err2str(result));
      }
      rd_kafka_poll(producer, 10);
    }
    rd_kafka_poll(producer, 0);
  };
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]), send);
  if (rd_kafka_flush(producer, 60000) != RD_KAFKA_RESP_ERR_NO_ERROR) ++refused;
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(producer);
  return refused == 0 ? 0 : 1;
}
