// The shortest way from an outbox to a RabbitMQ exchange that notices each confirm.
//   limit_rabbitmq POSTGRES_URL OUTBOX_TABLE BATCH amqp://USER:PASSWORD@HOST:PORT EXCHANGE
//   ID_PREFIX
#include <amqp.h>
#include <amqp_framing.h>

#include <array>
#include <cstdint>

#include "outbox_reader.h"
#include "rabbit_connection.h"

namespace {

constexpr std::uint64_t kWindow = 1000;

amqp_table_entry_t header(const char* name, const char* value) {
  amqp_table_entry_t entry{};
  entry.key = amqp_cstring_bytes(name);
  entry.value.kind = AMQP_FIELD_KIND_UTF8;
  entry.value.value.bytes = amqp_cstring_bytes(value);
  return entry;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_rabbitmq.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  const amqp_connection_state_t rabbit = bench::open_rabbit(argv[4]);
  amqp_confirm_select(rabbit, 1);
  if (amqp_get_rpc_reply(rabbit).reply_type != AMQP_RESPONSE_NORMAL) {
    bench::die("confirm.select", argv[4]);
  }
  std::uint64_t sent = 0;
  std::uint64_t confirmed = 0;
  const auto wait_until = [&](std::uint64_t least) {
    while (confirmed < least) {
      amqp_frame_t frame;
      if (amqp_simple_wait_frame(rabbit, &frame) != AMQP_STATUS_OK ||
          frame.frame_type != AMQP_FRAME_METHOD ||
          frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
        bench::die("waiting", "something else than a confirm came");
      }
      const auto* const ack = static_cast<amqp_basic_ack_t*>(frame.payload.method.decoded);
      confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
      amqp_maybe_release_buffers(rabbit);
    }
  };
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                      AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_HEADERS_FLAG;
  properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
  properties.content_type = amqp_cstring_bytes("application/json");
  bench::read_outbox(
      connection.get(), argv[2], std::atoi(argv[3]),
      [&](const char* id, const char* payload, int length) {
        const std::string message_id = std::string(argv[6]) + ":" + id;
        properties.message_id = amqp_cstring_bytes(message_id.c_str());
        std::array<amqp_table_entry_t, 4> headers = {
            header(bench::kIdHeader, message_id.c_str()), header(bench::kOpHeader, bench::kOp),
            header(bench::kTableHeader, bench::kTable), header(bench::kOutboxIdHeader, id)};
        properties.headers = {static_cast<int>(headers.size()), headers.data()};
        const amqp_bytes_t body{static_cast<std::size_t>(length), const_cast<char*>(payload)};
        if (amqp_basic_publish(rabbit, 1, amqp_cstring_bytes(argv[5]), amqp_cstring_bytes("rows"),
                               1, 0, &properties, body) != AMQP_STATUS_OK) {
          bench::die("publishing", argv[5]);
        }
        if (++sent - confirmed >= kWindow) wait_until(sent - kWindow / 2);
      });
  wait_until(sent);
  amqp_destroy_connection(rabbit);
  return 0;
}
