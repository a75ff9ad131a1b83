// An HTTP server that takes whatever it is sent, as fast as one thread can: the destination of the
// webhook benchmarks. GET answers how many POSTs have come.
//   http_target        prints its port, and ends with its standard input
#include <cstddef>
#include <string>

#include "http_serving.h"

int main() {
  std::size_t posts = 0;
  boost::asio::io_context context(1);
  bench::serve_http(context,
                    [&](const bench::HttpRequest& request,
                        bench::HttpResponse& response) -> boost::asio::awaitable<void> {
                      if (request.method() == bench::http::verb::post) {
                        ++posts;
                      } else {
                        response.body() = std::to_string(posts);
                      }
                      co_return;
                    });
  return 0;
}
