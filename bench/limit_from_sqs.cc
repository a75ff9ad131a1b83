// The shortest way from an SQS queue into an inbox that deletes what is committed: ten messages a
// signed request, four polls and eight deletions at once.
//   limit_from_sqs INBOX_URL INBOX_TABLE BATCH COUNT ENDPOINT QUEUE_URL
#include <simdjson.h>

#include <deque>
#include <string_view>

#include "inbox_writer.h"
#include "sqs_requests.h"

namespace {

constexpr int kPolls = 4;
constexpr int kDeletions = 8;
constexpr std::size_t kEntries = 10;

class Reader {
 public:
  Reader(bench::InboxWriter& writer, const char* endpoint, const std::string& queue_url, long count)
      : writer_(writer),
        requests_(endpoint),
        begin_(R"({"QueueUrl":")" + queue_url + '"'),
        queue_(queue_url.substr(queue_url.rfind('/') + 1)),
        left_(count) {}

  void run() {
    while (left_ > 0) {
      for (; polls_ < kPolls; ++polls_) poll();
      delete_committed();
      requests_.turn();
    }
    write();
    writer_.finish();
    while (!committed_.empty() || deletions_ > 0) {
      delete_committed();
      requests_.turn();
    }
  }

 private:
  bench::Request& unused() { return requests_.unused(kPolls + kDeletions); }

  void poll() {
    bench::Request& request = unused();
    request.body = begin_ +
                   R"(,"MaxNumberOfMessages":10,"WaitTimeSeconds":20,"VisibilityTimeout":30,)"
                   R"("AttributeNames":["All"],"MessageAttributeNames":["All"]})";
    requests_.send(request, "ReceiveMessage", [this](bench::Request& answered) {
      --polls_;
      take(answered.answer);
    });
  }

  void take(const std::string& answer) {
    simdjson::dom::array messages;
    if (parser_.parse(answer)["Messages"].get(messages)) return;
    for (const simdjson::dom::element message : messages) {
      const std::string_view id = message["MessageAttributes"]["pgtrickle-id"]["StringValue"];
      writer_.add(id, queue_, message["Body"], bench::headers_of(id));
      receipts_.emplace_back(std::string_view(message["ReceiptHandle"]));
      --left_;
      if (writer_.full()) write();
    }
  }

  void write() {
    writer_.send([this, receipts = std::exchange(receipts_, {})] {
      committed_.insert(committed_.end(), receipts.begin(), receipts.end());
    });
  }

  void delete_committed() {
    for (; deletions_ < kDeletions && !committed_.empty(); ++deletions_) {
      bench::Request& request = unused();
      request.body = begin_ + R"(,"Entries":[)";
      for (std::size_t i = 0; i < kEntries && !committed_.empty(); ++i) {
        if (i > 0) request.body += ',';
        request.body += R"({"Id":")" + std::to_string(i) + R"(","ReceiptHandle":")";
        request.body += committed_.front() + "\"}";
        committed_.pop_front();
      }
      request.body += "]}";
      requests_.send(request, "DeleteMessageBatch", [this](bench::Request& answered) {
        bench::check_batch(answered);
        --deletions_;
      });
    }
  }

  bench::InboxWriter& writer_;
  bench::SqsRequests requests_;
  const std::string begin_;
  const std::string queue_;
  long left_;
  int polls_ = 0;
  int deletions_ = 0;
  simdjson::dom::parser parser_;
  std::vector<std::string> receipts_;  // of what is not committed
  std::deque<std::string> committed_;  // of what is to be deleted
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) bench::die("usage", "see the head of limit_from_sqs.cc");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  bench::InboxWriter writer(argv[1], argv[2], std::atoi(argv[3]));
  Reader(writer, argv[5], argv[6], std::atol(argv[4])).run();
  return 0;
}
