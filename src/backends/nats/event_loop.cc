#include "backends/nats/event_loop.h"

#include <nats/nats.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace relay::nats {

/// The adapter that cnats asks for (natsOptions_SetEventLoop).
struct LoopCallbacks {
  static natsStatus attach(void** user_data, void* loop, natsConnection* connection,
                           natsSock socket) {
    auto* self = static_cast<EventLoop*>(loop);
    *user_data = self;
    self->connection_ = connection;
    self->wants_read_ = true;
    self->attach_socket(socket);
    return NATS_OK;
  }
  /// Removed just before the library closes the socket.
  static natsStatus read(void* user_data, bool add) {
    auto* self = static_cast<EventLoop*>(user_data);
    self->wants_read_ = add;
    if (add) {
      self->wakeup_.notify();
    } else {
      self->forget_socket();
    }
    return NATS_OK;
  }
  static natsStatus write(void* user_data, bool add) {
    auto* self = static_cast<EventLoop*>(user_data);
    self->wants_write_ = add;
    if (add && !self->held_) self->wakeup_.notify();
    return NATS_OK;
  }
  static natsStatus detach(void* user_data) {
    static_cast<EventLoop*>(user_data)->detach();
    return NATS_OK;
  }
};

EventLoop::EventLoop(Lease& lease)
    : lease_(lease), thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

EventLoop::~EventLoop() {
  thread_.request_stop();
  wakeup_.notify();
  thread_.join();
  {
    // Another thread of the library may have begun to close the connection before we did.
    const MutexLock lock(socket_mutex_);
    detached_.wait(socket_mutex_, [this]() RELAY_REQUIRES(socket_mutex_) { return !attached_; });
  }
}

int EventLoop::attach_to(__natsOptions* options) {
  // Otherwise a thread of the library first gathers for a millisecond what is to be written.
  if (const natsStatus set = natsOptions_SetSendAsap(options, true); set != NATS_OK) return set;
  return natsOptions_SetEventLoop(options, this, &LoopCallbacks::attach, &LoopCallbacks::read,
                                  &LoopCallbacks::write, &LoopCallbacks::detach);
}

void EventLoop::release() {
  held_ = false;
  if (wants_write_) wakeup_.notify();
}

void EventLoop::run(std::stop_token stop) {
  int guarded = -1;
  while (!stop.stop_requested()) {
    const int socket = socket_;
    if (socket != guarded) {
      guarded = socket;
      guard(socket);
    }
    const int events = (wants_read_ ? POLLIN : 0) | (wants_write_ ? POLLOUT : 0);
    serve(socket, events);
  }
}

/// Before anything is written to a socket: lets it end with the lease.
void EventLoop::guard(int socket) {
  const MutexLock lock(socket_mutex_);
  if (socket < 0 || socket_ != socket) return;
  auto cutter = SocketCutter::make(lease_, socket);
  if (cutter) {
    cutter_ = std::move(*cutter);
  } else {
    ::shutdown(socket, SHUT_RDWR);  // the library notices, and tells the outcomes
  }
}

void EventLoop::attach_socket(int socket) {
  {
    const MutexLock lock(socket_mutex_);
    attached_ = true;
    socket_ = socket;
  }
  wakeup_.notify();
}

/// After it nothing of ours touches the socket: the system may soon give its number to another one.
void EventLoop::forget_socket() {
  {
    const MutexLock lock(socket_mutex_);
    cutter_.reset();
    socket_ = -1;
  }
  wakeup_.notify();
}

/// The library's last call.
void EventLoop::detach() {
  forget_socket();
  const MutexLock lock(socket_mutex_);
  attached_ = false;
  detached_.notify_all();
}

/// Waits for what the socket can do, and lets the library do it.
void EventLoop::serve(int socket, int events) {
  pollfd waits[2] = {{wakeup_.fd(), POLLIN, 0},
                     {events != 0 ? socket : -1, static_cast<short>(events), 0}};
  if (::poll(waits, 2, -1) < 0) return;
  if (waits[0].revents != 0) wakeup_.drain();
  // The connection may have been closed meanwhile: both calls notice that themselves.
  if ((waits[1].revents & (POLLIN | POLLERR | POLLHUP | POLLNVAL)) != 0 && socket_ >= 0) {
    natsConnection_ProcessReadEvent(connection_);
  }
  if ((waits[1].revents & POLLOUT) != 0 && socket_ >= 0) {
    natsConnection_ProcessWriteEvent(connection_);
  }
}

}  // namespace relay::nats
