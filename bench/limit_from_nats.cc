// The shortest way from a JetStream stream into an inbox that acknowledges what is committed.
//   limit_from_nats INBOX_URL INBOX_TABLE BATCH COUNT NATS_URL STREAM
#include <nats/nats.h>

#include <memory>
#include <vector>

#include "inbox_writer.h"

namespace {

struct FreeMessage {
  void operator()(natsMsg* message) const { natsMsg_Destroy(message); }
};
using Message = std::shared_ptr<natsMsg>;

void check(natsStatus status, const char* doing) {
  if (status != NATS_OK) bench::die(doing, natsStatus_GetText(status));
}

natsSubscription* subscribe(natsConnection* nats, const std::string& stream, int batch) {
  jsCtx* context = nullptr;
  check(natsConnection_JetStream(&context, nats, nullptr), "JetStream");
  jsSubOptions options;
  jsSubOptions_Init(&options);
  options.Stream = stream.c_str();
  options.Config.MaxAckPending = 3L * batch;  // one batch is being written while the next is read
  natsSubscription* subscription = nullptr;
  check(js_PullSubscribe(&subscription, context, (stream + ".>").c_str(), "limit", nullptr,
                         &options, nullptr),
        "subscribing");
  return subscription;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_from_nats.cc");
  const int batch = std::atoi(argv[3]);
  bench::InboxWriter writer(argv[1], argv[2], batch);
  natsConnection* nats = nullptr;
  check(natsConnection_ConnectTo(&nats, argv[5]), "connecting to NATS");
  natsSubscription* const subscription = subscribe(nats, argv[6], batch);
  for (long left = std::atol(argv[4]); left > 0;) {
    natsMsgList list{};
    const natsStatus status = natsSubscription_Fetch(&list, subscription, batch, 1000, nullptr);
    if (status == NATS_TIMEOUT) continue;
    check(status, "fetching");
    std::vector<Message> read;
    for (int i = 0; i < list.Count; ++i) {
      natsMsg* const message = std::exchange(list.Msgs[i], nullptr);
      read.emplace_back(message, FreeMessage());
      const char* id = nullptr;
      check(natsMsgHeader_Get(message, "Nats-Msg-Id", &id), "reading the id");
      writer.add(
          id, argv[6],
          {natsMsg_GetData(message), static_cast<std::size_t>(natsMsg_GetDataLength(message))},
          bench::headers_of(id));
    }
    left -= list.Count;
    natsMsgList_Destroy(&list);
    writer.send([read = std::move(read)] {
      for (const Message& message : read) check(natsMsg_Ack(message.get(), nullptr), "ack");
    });
  }
  writer.finish();
  check(natsConnection_FlushTimeout(nats, 10000), "flushing");
  natsSubscription_Destroy(subscription);
  natsConnection_Destroy(nats);
  return 0;
}
