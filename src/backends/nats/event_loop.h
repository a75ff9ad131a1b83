#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "core/lease.h"
#include "core/mutex.h"
#include "core/wakeup.h"

struct __natsConnection;
struct __natsOptions;

namespace relay::nats {

/// Serves the socket of one cnats connection from a thread of its own, in place of the library's
/// reader and flusher. So no call of ours ever blocks in a write to a server that takes nothing:
/// what is published is buffered, and this thread sends it when the socket allows.
///
/// Made before the connection, destroyed after it was closed and before it is destroyed.
class EventLoop {
 public:
  /// What it sends ends with the lease.
  explicit EventLoop(Lease& lease);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Makes the connections of these options use this loop. A cnats status.
  int attach_to(__natsOptions* options);

  /// Between `hold` and `release` what is published only gathers: many messages make one write.
  void hold() { held_ = true; }
  void release();

 private:
  friend struct LoopCallbacks;

  void run(std::stop_token stop);
  void serve(int socket, int events);
  void guard(int socket);
  void attach_socket(int socket);
  void forget_socket();
  void detach();

  Lease& lease_;
  Wakeup wakeup_;
  std::atomic<__natsConnection*> connection_ = nullptr;
  std::atomic<int> socket_ = -1;
  std::atomic<bool> wants_read_ = false;
  std::atomic<bool> wants_write_ = false;
  std::atomic<bool> held_ = false;
  Mutex socket_mutex_;
  Condition detached_;
  bool attached_ RELAY_GUARDED_BY(socket_mutex_) = false;
  std::unique_ptr<SocketCutter> cutter_ RELAY_GUARDED_BY(socket_mutex_);
  std::jthread thread_;
};

}  // namespace relay::nats
