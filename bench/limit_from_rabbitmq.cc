// The shortest way from a RabbitMQ queue into an inbox that acknowledges what is committed.
//   limit_from_rabbitmq INBOX_URL INBOX_TABLE BATCH COUNT amqp://USER:PASSWORD@HOST:PORT QUEUE
#include <cstdint>

#include "inbox_writer.h"
#include "rabbit_connection.h"

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_from_rabbitmq.cc");
  const int batch = std::atoi(argv[3]);
  bench::InboxWriter writer(argv[1], argv[2], batch);
  const amqp_connection_state_t rabbit = bench::open_rabbit(argv[5]);
  // One batch is being written while the next one is read.
  amqp_basic_qos(rabbit, 1, 0, static_cast<std::uint16_t>(2 * batch), 0);
  amqp_basic_consume(rabbit, 1, amqp_cstring_bytes(argv[6]), amqp_empty_bytes, 0, 0, 0,
                     amqp_empty_table);
  if (amqp_get_rpc_reply(rabbit).reply_type != AMQP_RESPONSE_NORMAL) {
    bench::die("consuming", argv[6]);
  }
  const auto acknowledge = [&](std::uint64_t tag) {
    if (amqp_basic_ack(rabbit, 1, tag, 1) != AMQP_STATUS_OK) bench::die("acknowledging", argv[6]);
  };
  std::uint64_t tag = 0;
  for (long left = std::atol(argv[4]); left > 0; --left) {
    amqp_maybe_release_buffers(rabbit);
    amqp_envelope_t envelope;
    if (amqp_consume_message(rabbit, &envelope, nullptr, 0).reply_type != AMQP_RESPONSE_NORMAL) {
      bench::die("waiting", "no message came");
    }
    const amqp_bytes_t& text = envelope.message.properties.message_id;
    const std::string id(static_cast<const char*>(text.bytes), text.len);
    const amqp_bytes_t& body = envelope.message.body;
    writer.add(id, argv[6], {static_cast<const char*>(body.bytes), body.len},
               bench::headers_of(id));
    tag = envelope.delivery_tag;
    amqp_destroy_envelope(&envelope);
    if (writer.full()) writer.send([&, tag] { acknowledge(tag); });
  }
  writer.send([&, tag] { acknowledge(tag); });
  writer.finish();
  amqp_connection_close(rabbit, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(rabbit);
  return 0;
}
