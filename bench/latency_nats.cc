// How long after the client's commit returned a change is in the stream, and a consumer has it.
// Open loop: each transaction has its moment, whatever became of those before it.
//   latency_nats POSTGRES_URL NATS_URL STREAM RATE SECONDS CONNECTIONS
// Inserts rows (id, payload) into the table `latency`; a pipeline must carry its outbox to STREAM.
// Prints one line of JSON: percentiles in ms, from the commit's return to the consumer ("seen_*")
// and to the moment that the stream notes for the message ("stored_*").
#include <nats/nats.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "outbox_reader.h"

namespace {

using Clock = std::chrono::system_clock;  // the stream's timestamps are of this clock

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

void check(natsStatus status, const char* doing) {
  if (status != NATS_OK) bench::die(doing, natsStatus_GetText(status));
}

struct Sample {
  std::atomic<std::int64_t> committed{0};
  std::int64_t seen = 0;
  std::int64_t stored = 0;
};

void write(const char* url, std::vector<Sample>& samples, std::size_t first, std::size_t step,
           Clock::time_point begin, std::chrono::nanoseconds interval) {
  const bench::Connection connection = bench::connect(url);
  const std::string payload(250, 'x');
  for (std::size_t i = first; i < samples.size(); i += step) {
    std::this_thread::sleep_until(begin + interval * i);
    const std::string id = std::to_string(i);
    const char* const values[] = {id.c_str(), payload.c_str()};
    const bench::Rows done(PQexecParams(connection.get(), "insert into latency values ($1, $2)", 2,
                                        nullptr, values, nullptr, nullptr, 0));
    samples[i].committed = now_ns();
    if (PQresultStatus(done.get()) != PGRES_COMMAND_OK) {
      bench::die("inserting", PQerrorMessage(connection.get()));
    }
  }
}

/// The row's id, out of the message's body.
std::size_t id_in(natsMsg* message) {
  const std::string body(natsMsg_GetData(message),
                         static_cast<std::size_t>(natsMsg_GetDataLength(message)));
  auto at = body.find("[{");
  at = body.find("\"id\":", at == std::string::npos ? 0 : at);
  if (at == std::string::npos) bench::die("reading", "a message without an id");
  return std::strtoul(body.c_str() + at + 5, nullptr, 10);
}

/// Takes messages until each sample has one, or none came for ten seconds.
std::size_t read(natsSubscription* subscription, std::vector<Sample>& samples) {
  std::size_t count = 0;
  while (count < samples.size()) {
    natsMsg* message = nullptr;
    if (natsSubscription_NextMsg(&message, subscription, 10000) != NATS_OK) break;
    const std::int64_t seen = now_ns();
    jsMsgMetaData* data = nullptr;
    check(natsMsg_GetMetaData(&data, message), "metadata");
    Sample& sample = samples.at(id_in(message));
    if (sample.seen == 0) ++count;
    sample.seen = seen;
    sample.stored = data->Timestamp;
    jsMsgMetaData_Destroy(data);
    natsMsg_Destroy(message);
  }
  return count;
}

double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of latency_nats.cc");
  const double rate = std::atof(argv[4]);
  const auto connections = static_cast<std::size_t>(std::atoi(argv[6]));
  std::vector<Sample> samples(static_cast<std::size_t>(rate * std::atof(argv[5])));

  natsConnection* nats = nullptr;
  check(natsConnection_ConnectTo(&nats, argv[2]), "connecting to NATS");
  jsCtx* context = nullptr;
  check(natsConnection_JetStream(&context, nats, nullptr), "JetStream");
  jsSubOptions options;
  jsSubOptions_Init(&options);
  options.Stream = argv[3];
  options.Ordered = true;
  natsSubscription* subscription = nullptr;
  check(js_SubscribeSync(&subscription, context, ">", nullptr, &options, nullptr), "subscribing");

  const auto interval = std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 / rate));
  const auto begin = Clock::now() + std::chrono::milliseconds(300);
  std::vector<std::jthread> writers;
  for (std::size_t i = 0; i < connections; ++i) {
    writers.emplace_back([&, i] { write(argv[1], samples, i, connections, begin, interval); });
  }
  const std::size_t arrived = read(subscription, samples);
  writers.clear();

  std::vector<double> seen;
  std::vector<double> stored;
  std::int64_t last = 0;
  for (const Sample& sample : samples) {
    if (sample.seen == 0) continue;
    seen.push_back(static_cast<double>(sample.seen - sample.committed) / 1e6);
    stored.push_back(static_cast<double>(sample.stored - sample.committed) / 1e6);
    last = std::max<std::int64_t>(last, sample.committed);
  }
  const std::int64_t first_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(begin.time_since_epoch()).count();
  std::printf(
      "{\"sent\": %zu, \"arrived\": %zu, \"rate\": %.0f, \"seen_p50\": %.3f, \"seen_p99\": %.3f, "
      "\"seen_max\": %.3f, \"stored_p50\": %.3f, \"stored_p99\": %.3f}\n",
      samples.size(), arrived,
      static_cast<double>(samples.size()) / (static_cast<double>(last - first_ns) / 1e9),
      percentile(seen, 0.5), percentile(seen, 0.99), percentile(seen, 1), percentile(stored, 0.5),
      percentile(stored, 0.99));
  return arrived == samples.size() ? 0 : 1;
}
