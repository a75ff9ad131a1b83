#include "backends/rabbitmq/heartbeat.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "core/pause.h"

namespace relay::rabbitmq {

namespace {

using std::chrono::milliseconds;

/// In each interval; a broker gives a client up that was silent for two.
constexpr int kBeatsWithin = 3;
/// With fewer bytes unread, no broker is kept from sending.
constexpr int kMuchUnread = 1024;

/// How long ago bytes arrived at a socket, read or not.
milliseconds since_last_arrival(int socket) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return milliseconds(0);
  return milliseconds(info.tcpi_last_data_recv);
}

int unread_bytes(int socket) {
  int unread = 0;
  return ::ioctl(socket, FIONREAD, &unread) == 0 ? unread : 0;
}

}  // namespace

bool Silence::lasts(TimePoint now, TimePoint last_arrival, int unread) {
  heard_ = std::max(heard_, unread >= kMuchUnread ? now : last_arrival);
  return now - heard_ > limit_;
}

Heartbeat::Heartbeat(int socket, std::chrono::seconds interval, std::function<void()> send)
    : socket_(socket),
      interval_(interval),
      send_(std::move(send)),
      thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

void Heartbeat::run(std::stop_token stop) {
  Silence silence(interval_, SteadyClock::now());
  while (pause(Deadline::after(milliseconds(interval_) / kBeatsWithin), stop)) {
    const auto now = SteadyClock::now();
    if (silence.lasts(now, now - since_last_arrival(socket_), unread_bytes(socket_))) {
      met_silence_ = true;
      ::shutdown(socket_, SHUT_RDWR);
      return;
    }
    send_();
  }
}

}  // namespace relay::rabbitmq
