// The shortest way from an outbox to an HTTP server that notices each answer: 16 POSTs at once.
//   limit_webhook POSTGRES_URL OUTBOX_TABLE BATCH URL ID_PREFIX
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "curl_requests.h"
#include "outbox_reader.h"

namespace {

constexpr std::size_t kAtOnce = 16;

void send(bench::Requests& requests, const std::string& id, const std::string& outbox_id,
          const char* payload, int length) {
  bench::Request& request = requests.unused(kAtOnce);
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, std::string_view>>{
           {"Idempotency-Key: ", id},
           {"webhook-id: ", id},
           {"pgtrickle-id: ", id},
           {"pgtrickle-op: ", bench::kOp},
           {"pgtrickle-stream-table: ", bench::kTable},
           {"pgtrickle-outbox-id: ", outbox_id},
           {"Content-Type: ", "application/json"},
           {"Expect:", ""}}) {
    request.headers = curl_slist_append(request.headers, std::string(name).append(value).c_str());
  }
  request.body.assign(payload, static_cast<std::size_t>(length));
  requests.send(request, [](bench::Request&) {});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) bench::die("usage", "see the head of limit_webhook.cc");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const bench::Connection connection = bench::connect(argv[1]);
  bench::Requests requests([&](CURL* easy) { curl_easy_setopt(easy, CURLOPT_URL, argv[4]); });
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]),
                     [&](const char* id, const char* payload, int length) {
                       send(requests, std::string(argv[5]) + ":" + id, id, payload, length);
                     });
  requests.finish();
  return 0;
}
