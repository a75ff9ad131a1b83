// The shortest way from an outbox to an SQS queue that notices each answer: ten messages a signed
// request, 16 requests at once.
//   limit_sqs POSTGRES_URL OUTBOX_TABLE BATCH ENDPOINT QUEUE_URL ID_PREFIX
#include <string>
#include <string_view>

#include "outbox_reader.h"
#include "sqs_requests.h"

namespace {

constexpr std::size_t kAtOnce = 16;
constexpr int kEntries = 10;

/// Payloads come from jsonb: no control characters, and quotes and backslashes to escape.
void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
}

class Sender {
 public:
  Sender(const char* endpoint, const char* queue_url)
      : requests_(endpoint), begin_(std::string(R"({"QueueUrl":")") + queue_url) {
    begin_ += R"(","Entries":[)";
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
    requests_.finish();
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
    bench::Request& request = requests_.unused(kAtOnce);
    body_ += "]}";
    request.body.swap(body_);
    entries_ = 0;
    requests_.send(request, "SendMessageBatch", bench::check_batch);
  }

  bench::SqsRequests requests_;
  std::string begin_;
  std::string body_;
  int entries_ = 0;
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
