// The shortest way from an outbox to an SQS queue that notices each answer: ten messages a signed
// request, 16 requests at once.
//   limit_sqs POSTGRES_URL OUTBOX_TABLE BATCH ENDPOINT QUEUE_URL ID_PREFIX
#include <curl/curl.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "outbox_reader.h"

namespace {

constexpr std::size_t kAtOnce = 16;
constexpr int kEntries = 10;

std::size_t keep(char* bytes, std::size_t size, std::size_t count, void* answer) {
  static_cast<std::string*>(answer)->append(bytes, size * count);
  return size * count;
}

/// Payloads come from jsonb: no control characters, and quotes and backslashes to escape.
void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
}

struct Request {
  CURL* easy = nullptr;
  std::string body;
  std::string answer;
};

class Sender {
 public:
  Sender(const char* endpoint, const char* queue_url)
      : multi_(curl_multi_init()), begin_(std::string(R"({"QueueUrl":")") + queue_url) {
    begin_ += R"(","Entries":[)";
    headers_ = curl_slist_append(headers_, "Content-Type: application/x-amz-json-1.0");
    headers_ = curl_slist_append(headers_, "X-Amz-Target: AmazonSQS.SendMessageBatch");
    headers_ = curl_slist_append(headers_, "Expect:");
    for (Request& request : requests_) {
      request.easy = curl_easy_init();
      curl_easy_setopt(request.easy, CURLOPT_URL, endpoint);
      curl_easy_setopt(request.easy, CURLOPT_POST, 1L);
      curl_easy_setopt(request.easy, CURLOPT_HTTPHEADER, headers_);
      curl_easy_setopt(request.easy, CURLOPT_AWS_SIGV4, "aws:amz:eu-west-1:sqs");
      curl_easy_setopt(request.easy, CURLOPT_USERPWD, "AKIATEST:secret");
      curl_easy_setopt(request.easy, CURLOPT_WRITEFUNCTION, &keep);
      curl_easy_setopt(request.easy, CURLOPT_WRITEDATA, &request.answer);
      curl_easy_setopt(request.easy, CURLOPT_PRIVATE, &request);
      free_.push_back(&request);
    }
  }

  void add(const std::string& id, std::string_view outbox_id, std::string_view payload) {
    if (entries_ == 0) body_ = begin_;
    if (entries_ > 0) body_ += ',';
    body_ += R"({"Id":")";
    body_ += static_cast<char>('0' + entries_);
    body_ += R"(","MessageBody":")";
    append_escaped(body_, payload);
    body_ += R"(","MessageAttributes":{)";
    attribute(bench::kIdHeader, id);
    body_ += ',';
    attribute(bench::kOpHeader, bench::kOp);
    body_ += ',';
    attribute(bench::kTableHeader, bench::kTable);
    body_ += ',';
    attribute(bench::kOutboxIdHeader, outbox_id);
    body_ += "}}";
    if (++entries_ == kEntries) send();
  }

  void finish() {
    if (entries_ > 0) send();
    while (free_.size() < kAtOnce) turn();
  }

 private:
  void attribute(std::string_view name, std::string_view value) {
    body_ += '"';
    body_ += name;
    body_ += R"(":{"DataType":"String","StringValue":")";
    body_ += value;
    body_ += R"("})";
  }

  void send() {
    while (free_.empty()) turn();
    Request& request = *free_.back();
    free_.pop_back();
    body_ += "]}";
    request.body.swap(body_);
    request.answer.clear();
    entries_ = 0;
    curl_easy_setopt(request.easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
    curl_easy_setopt(request.easy, CURLOPT_POSTFIELDS, request.body.data());
    curl_multi_add_handle(multi_, request.easy);
  }

  void turn() {
    int running = 0;
    curl_multi_perform(multi_, &running);
    bool ended = false;
    int left = 0;
    while (CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
      Request* request = nullptr;
      long status = 0;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request);
      curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
      if (message->data.result != CURLE_OK || status != 200 ||
          request->answer.find(R"("Failed":[{)") != std::string::npos) {
        bench::die("SendMessageBatch", request->answer.c_str());
      }
      curl_multi_remove_handle(multi_, request->easy);
      free_.push_back(request);
      ended = true;
    }
    if (!ended) curl_multi_poll(multi_, nullptr, 0, 1000, nullptr);
  }

  CURLM* multi_;
  std::string begin_;
  curl_slist* headers_ = nullptr;
  std::string body_;
  int entries_ = 0;
  std::array<Request, kAtOnce> requests_;
  std::vector<Request*> free_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_sqs.cc");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const bench::Connection connection = bench::connect(argv[1]);
  Sender sender(argv[4], argv[5]);
  bench::read_outbox(connection.get(), argv[2], std::atoi(argv[3]),
                     [&](const char* id, const char* payload, int length) {
                       sender.add(std::string(argv[6]) + ":" + id, id,
                                  std::string_view(payload, static_cast<std::size_t>(length)));
                     });
  sender.finish();
  return 0;
}
