// The shortest way from an outbox to JetStream that notices each acknowledgement.
//   limit_nats POSTGRES_URL OUTBOX_TABLE BATCH NATS_URL SUBJECT ID_PREFIX
#include <nats/nats.h>

#include <atomic>
#include <utility>

#include "outbox_reader.h"

namespace {

std::atomic<long> refused = 0;

void on_acknowledgement(jsCtx*, natsMsg* message, jsPubAck* ack, jsPubAckErr*, void*) {
  if (ack == nullptr) ++refused;
  natsMsg_Destroy(message);
}

void check(natsStatus status, const char* doing) {
  if (status != NATS_OK) bench::die(doing, natsStatus_GetText(status));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_nats.cc");
  const bench::Connection connection = bench::connect(argv[1]);
  natsConnection* nats = nullptr;
  check(natsConnection_ConnectTo(&nats, argv[4]), "connecting to NATS");
  jsOptions options;
  jsOptions_Init(&options);
  options.PublishAsync.MaxPending = 4000;
  options.PublishAsync.StallWait = 60000;
  options.PublishAsync.AckHandler = &on_acknowledgement;
  jsCtx* context = nullptr;
  check(natsConnection_JetStream(&context, nats, &options), "JetStream");
  bench::read_outbox(
      connection.get(), argv[2], std::atoi(argv[3]),
      [&](const char* id, const char* payload, int length) {
        const std::string message_id = std::string(argv[6]) + ":" + id;
        natsMsg* message = nullptr;
        check(natsMsg_Create(&message, argv[5], nullptr, payload, length), "create");
        for (const auto& [name, value] :
             {std::pair{"Nats-Msg-Id", message_id.c_str()},
              std::pair{bench::kIdHeader, message_id.c_str()},
              std::pair{bench::kTableHeader, bench::kTable},
              std::pair{bench::kOpHeader, bench::kOp}, std::pair{bench::kOutboxIdHeader, id}}) {
          check(natsMsgHeader_Set(message, name, value), "header");
        }
        check(js_PublishMsgAsync(context, &message, nullptr), "publish");
      });
  check(js_PublishAsyncComplete(context, nullptr), "waiting");
  return refused == 0 ? 0 : 1;
}
