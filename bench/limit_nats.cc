// The shortest way from an outbox to JetStream that notices each acknowledgement.
//   limit_nats POSTGRES_URL OUTBOX_TABLE BATCH NATS_URL SUBJECT ID_PREFIX
#include <nats/nats.h>

#include <atomic>

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
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]),
                     [&](const char* id, const char* payload, int length) {
                       const std::string message_id = std::string(argv[6]) + ":" + id;
                       jsPubOptions publish;
                       jsPubOptions_Init(&publish);
                       publish.MsgId = message_id.c_str();
                       check(js_PublishAsync(context, argv[5], payload, length, &publish),
                             "publish");
                     });
  check(js_PublishAsyncComplete(context, nullptr), "waiting");
  return refused == 0 ? 0 : 1;
}
