#include "http/server/connection.h"

#include <boost/asio.hpp>
#include <utility>

namespace relay::http {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
// A step may consist of several reads. One that begins just after its time has passed is cancelled
// too.
constexpr milliseconds kCancelAgain{100};

}  // namespace

Connection::Connection(asio::io_context& io, asio::ip::tcp::socket& socket)
    : socket_(socket),
      place_(std::make_shared<ConnectionPlace>(ConnectionPlace{this})),
      step_(io),
      answered_(io) {}

Connection::~Connection() {
  place_->connection = nullptr;
}

void Connection::allow(milliseconds time) {
  late_ = false;
  step_.expires_after(time);
  cancel_when_late();
}

void Connection::cancel_when_late() {
  step_.async_wait([place = place_](error_code error) {
    Connection* const connection = place->connection;
    // Armed again in the meantime, or ended.
    if (error || !connection || connection->step_.expiry() > steady_clock::now()) return;
    connection->late_ = true;
    error_code ignored;
    connection->socket_.cancel(ignored);
    connection->step_.expires_after(kCancelAgain);
    connection->cancel_when_late();
  });
}

void Connection::allow_any_time() {
  late_ = false;
  step_.expires_at(steady_clock::time_point::max());
}

void Connection::close() {
  error_code ignored;
  socket_.close(ignored);
}

asio::awaitable<SharedAnswer> Connection::ask(Service& service, IncomingRequest&& request) {
  allow_any_time();
  answer_ = nullptr;
  answered_.expires_at(steady_clock::time_point::max());
  service.begin(std::move(request), PendingAnswer(place_, ++request_));
  while (!answer_) {
    const auto [cancelled] = co_await answered_.async_wait(kNoThrow);
    if (cancelled || answer_ || answered_.expiry() > steady_clock::now()) continue;
    answer_ = service.late(ticket_);
  }
  ++request_;  // what is sent from now on comes too late
  co_return std::exchange(answer_, nullptr);
}

void PendingAnswer::send(SharedAnswer answer) const {
  Connection* const connection = place_->connection;
  if (!connection || connection->request_ != request_ || connection->answer_) return;
  connection->answer_ = std::move(answer);
  connection->answered_.cancel();
}

void PendingAnswer::allow(milliseconds time, std::int64_t ticket) const {
  Connection* const connection = place_->connection;
  if (!connection || connection->request_ != request_ || connection->answer_) return;
  connection->ticket_ = ticket;
  connection->answered_.expires_after(time);
}

}  // namespace relay::http
