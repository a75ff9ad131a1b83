// Sends POST requests over connections that are kept open, one after the other on each, and prints
// how many were answered with 200 in a second and how long an answer took, as JSON.
//   http_load PORT PATH CONNECTIONS REQUESTS BODY_BYTES
#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

struct Load {
  tcp::endpoint server;
  std::string path;
  std::string body;
  long left = 0;  // requests
  std::vector<double> milliseconds;
};

std::string next_request(const Load& load) {
  return "POST " + load.path + " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n" +
         "Idempotency-Key: r" + std::to_string(load.left) +
         "\r\nContent-Length: " + std::to_string(load.body.size()) + "\r\n\r\n" + load.body;
}

std::size_t length_of(std::string_view head) {
  constexpr std::string_view kName = "Content-Length: ";
  const auto at = head.find(kName);
  return at == std::string_view::npos ? 0 : std::strtoul(&head[at + kName.size()], nullptr, 10);
}

asio::awaitable<void> client(Load& load) {
  tcp::socket socket(co_await asio::this_coro::executor);
  co_await socket.async_connect(load.server, asio::use_awaitable);
  socket.set_option(tcp::no_delay(true));
  std::string answer;
  while (load.left > 0) {
    const std::string request = next_request(load);
    --load.left;
    const auto begin = Clock::now();
    co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
    const std::size_t head = co_await asio::async_read_until(socket, asio::dynamic_buffer(answer),
                                                             "\r\n\r\n", asio::use_awaitable);
    const std::size_t whole = head + length_of(std::string_view(answer).substr(0, head));
    if (answer.size() < whole) {
      co_await asio::async_read(socket, asio::dynamic_buffer(answer),
                                asio::transfer_exactly(whole - answer.size()), asio::use_awaitable);
    }
    if (!answer.starts_with("HTTP/1.1 200")) throw std::runtime_error(answer.substr(0, head));
    answer.erase(0, whole);
    load.milliseconds.push_back(
        std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "see the head of http_load.cc\n");
    return 1;
  }
  Load load;
  load.server = {asio::ip::address_v4::loopback(), static_cast<unsigned short>(std::atoi(argv[1]))};
  load.path = argv[2];
  load.left = std::atol(argv[4]);
  load.body = R"({"note":")" + std::string(std::strtoul(argv[5], nullptr, 10), 'x') + R"("})";
  load.milliseconds.reserve(static_cast<std::size_t>(load.left));
  asio::io_context context(1);
  const auto begin = Clock::now();
  for (int i = 0; i < std::atoi(argv[3]); ++i) {
    asio::co_spawn(context, client(load), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
  try {
    context.run();
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "a request failed: %s\n", exception.what());
    return 1;
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(load.milliseconds.begin(), load.milliseconds.end());
  const std::size_t count = load.milliseconds.size();
  std::printf("{\"rate\": %.0f, \"p50\": %.3f, \"p99\": %.3f}\n",
              static_cast<double>(count) / seconds, load.milliseconds[count / 2],
              load.milliseconds[count * 99 / 100]);
  return 0;
}
