#include "http/server/workers.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace relay::http {

namespace asio = boost::asio;

struct Workers::Impl {
  asio::io_context io;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::vector<std::thread> threads;
};

Workers::Workers() : impl_(std::make_unique<Impl>()) {}

Workers::~Workers() {
  join();
}

void Workers::start(std::size_t count) {
  impl_->work.emplace(asio::make_work_guard(impl_->io));
  for (std::size_t i = 0; i < count; ++i) {
    impl_->threads.emplace_back([&io = impl_->io] { io.run(); });
  }
}

void Workers::post(std::function<void()> function) {
  asio::post(impl_->io, std::move(function));
}

void Workers::join() {
  impl_->work.reset();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

}  // namespace relay::http
