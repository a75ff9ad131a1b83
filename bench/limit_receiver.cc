// The shortest HTTP server that answers when a message is committed: what came while one INSERT ran
// is written by the next one.
//   limit_receiver INBOX_URL INBOX_TABLE        prints its port, and ends with its standard input
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <limits>
#include <vector>

#include "http_serving.h"
#include "inbox_writer.h"

namespace {

namespace asio = boost::asio;

class GroupCommit {
 public:
  GroupCommit(asio::io_context& context, const char* url, const char* table)
      : writer_(url, table, std::numeric_limits<int>::max()),
        socket_(context, ::dup(writer_.socket())) {}

  /// Returns when it is committed.
  asio::awaitable<void> write(std::string_view id, std::string_view payload) {
    writer_.add(
        id, "", payload,
        R"({"content-type":"application/json","idempotency-key":")" + std::string(id) + R"("})");
    asio::steady_timer committed(socket_.get_executor(), asio::steady_timer::time_point::max());
    waiting_.push_back(&committed);
    if (!writing_) send();
    co_await committed.async_wait(asio::as_tuple(asio::use_awaitable));
  }

 private:
  void send() {
    writing_ = true;
    writer_.send([group = std::exchange(waiting_, {})] {
      for (asio::steady_timer* const committed : group) committed->cancel();
    });
    wait();
  }

  void wait() {
    socket_.async_wait(socket_.wait_read, [this](const boost::system::error_code&) {
      if (!writer_.answered()) return wait();
      writer_.finish();
      writing_ = false;
      if (!waiting_.empty()) send();
    });
  }

  bench::InboxWriter writer_;
  asio::posix::stream_descriptor socket_;
  bool writing_ = false;
  std::vector<asio::steady_timer*> waiting_;  // of the messages that were added
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) bench::die("usage", "see the head of limit_receiver.cc");
  asio::io_context context(1);
  GroupCommit inbox(context, argv[1], argv[2]);
  bench::serve_http(context,
                    [&](const bench::HttpRequest& request,
                        bench::HttpResponse& response) -> asio::awaitable<void> {
                      co_await inbox.write(request["Idempotency-Key"], request.body());
                      response.set(bench::http::field::content_type, "application/json");
                      response.body() = "{\"status\":\"committed\"}\n";
                    });
  return 0;
}
