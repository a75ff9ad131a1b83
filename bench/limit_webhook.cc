// The shortest way from an outbox to an HTTP server that notices each answer: 16 POSTs at once.
//   limit_webhook POSTGRES_URL OUTBOX_TABLE BATCH URL ID_PREFIX
#include <curl/curl.h>

#include <array>
#include <vector>

#include "outbox_reader.h"

namespace {

constexpr std::size_t kAtOnce = 16;

std::size_t ignore(char*, std::size_t size, std::size_t count, void*) {
  return size * count;
}

struct Request {
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
};

class Sender {
 public:
  explicit Sender(const char* url) : multi_(curl_multi_init()) {
    for (Request& request : requests_) {
      request.easy = curl_easy_init();
      curl_easy_setopt(request.easy, CURLOPT_URL, url);
      curl_easy_setopt(request.easy, CURLOPT_POST, 1L);
      curl_easy_setopt(request.easy, CURLOPT_WRITEFUNCTION, &ignore);
      curl_easy_setopt(request.easy, CURLOPT_PRIVATE, &request);
      free_.push_back(&request);
    }
  }

  void send(const std::string& id, const std::string& outbox_id, const char* payload, int length) {
    while (free_.empty()) turn();
    Request& request = *free_.back();
    free_.pop_back();
    request.headers = nullptr;
    add_header(request, "Idempotency-Key: ", id);
    add_header(request, "webhook-id: ", id);
    add_header(request, "pgtrickle-id: ", id);
    add_header(request, "pgtrickle-op: ", bench::kOp);
    add_header(request, "pgtrickle-stream-table: ", bench::kTable);
    add_header(request, "pgtrickle-outbox-id: ", outbox_id);
    add_header(request, "Content-Type: ", "application/json");
    add_header(request, "Expect:", "");
    curl_easy_setopt(request.easy, CURLOPT_HTTPHEADER, request.headers);
    curl_easy_setopt(request.easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(length));
    curl_easy_setopt(request.easy, CURLOPT_COPYPOSTFIELDS, payload);
    curl_multi_add_handle(multi_, request.easy);
  }

  void finish() {
    while (free_.size() < kAtOnce) turn();
  }

 private:
  static void add_header(Request& request, const char* name, const std::string& value) {
    request.headers = curl_slist_append(request.headers, (name + value).c_str());
  }

  void turn() {
    int running = 0;
    curl_multi_perform(multi_, &running);
    bool ended = false;
    int left = 0;
    while (CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
      long status = 0;
      curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
      if (message->data.result != CURLE_OK || status / 100 != 2) {
        bench::die("POST", curl_easy_strerror(message->data.result));
      }
      Request* request = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request);
      curl_multi_remove_handle(multi_, request->easy);
      curl_slist_free_all(request->headers);
      free_.push_back(request);
      ended = true;
    }
    if (!ended) curl_multi_poll(multi_, nullptr, 0, 1000, nullptr);
  }

  CURLM* multi_;
  std::array<Request, kAtOnce> requests_;
  std::vector<Request*> free_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) bench::die("usage", "see the head of limit_webhook.cc");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const bench::Connection connection = bench::connect(argv[1]);
  Sender sender(argv[4]);
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]),
                     [&](const char* id, const char* payload, int length) {
                       sender.send(std::string(argv[5]) + ":" + id, id, payload, length);
                     });
  sender.finish();
  return 0;
}
