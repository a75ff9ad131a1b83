#include "core/lease.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <utility>
#include <vector>

namespace relay {

BootClock::time_point BootClock::now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

/// The socket that a signal has to cut. Targets are reused and never freed, because a signal may
/// arrive after its timer was deleted. By then the target may belong to another socket: that one is
/// cut only if its own lease is over, which is right as well.
struct SocketCutter::Target {
  std::atomic<Lease*> lease = nullptr;
  std::atomic<int> socket = -1;
};

namespace {

using Target = SocketCutter::Target;

struct Targets {
  Mutex mutex;
  std::vector<Target*> unused RELAY_GUARDED_BY(mutex);
};

/// Never destroyed: a signal may come while the process ends.
Targets& targets() {
  static auto* const all = new Targets;
  return *all;
}

Target* take_target(Lease& lease, int socket) {
  Targets& all = targets();
  const MutexLock lock(all.mutex);
  if (all.unused.empty()) all.unused.push_back(new Target);
  Target* const target = all.unused.back();
  all.unused.pop_back();
  target->socket = socket;
  target->lease = &lease;
  return target;
}

void give_back(Target* target) {
  target->lease = nullptr;
  target->socket = -1;
  Targets& all = targets();
  const MutexLock lock(all.mutex);
  all.unused.push_back(target);
}

/// Aborts a TCP connection and drops unsent bytes; shuts any other socket down.
void cut(int socket) {
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  ::connect(socket, &nowhere, sizeof nowhere);
  ::shutdown(socket, SHUT_RDWR);
}

/// Only calls of signal-safety(7), and atomics.
void on_signal(int, siginfo_t* info, void*) {
  if (info->si_code != SI_TIMER) return;
  const int saved = errno;
  const auto* const target = static_cast<const Target*>(info->si_value.sival_ptr);
  const Lease* const lease = target->lease;
  const int socket = target->socket;
  if (lease != nullptr && socket >= 0 && lease->is_cut()) cut(socket);
  errno = saved;
}

}  // namespace

Lease& Lease::endless() {
  static auto* const lease = [] {
    auto* const made = new Lease;
    made->until_ = made->cut_ = BootClock::time_point::max();
    return made;
  }();
  return *lease;
}

void Lease::extend(BootClock::time_point until, BootClock::time_point cut) {
  const MutexLock lock(mutex_);
  until_ = until;
  cut_ = cut;
  for (const SocketCutter* cutter : cutters_) cutter->arm(cut);
}

void Lease::end() {
  extend(BootClock::time_point::min(), BootClock::time_point::min());
}

Error lease_over() {
  return {ErrorClass::transient,
          "lease_over",
          "the lease was not renewed in time, and another instance may own the pipeline",
          "it goes on when the lease is renewed; look for what held it up: the database, a frozen "
          "machine, a cut network",
          {}};
}

Result<std::unique_ptr<SocketCutter>> SocketCutter::make(Lease& lease, int socket) {
  if (&lease == &Lease::endless()) return nullptr;
  if (!lease.holds()) return fail(lease_over());
  // Bytes that the kernel buffers for a slow peer are sent even while the process is frozen.
  constexpr int kMostUnsent = 128 << 10;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kMostUnsent, sizeof kMostUnsent);
  std::unique_ptr<SocketCutter> cutter(new SocketCutter(lease, take_target(lease, socket)));
  auto timer = ThreadTimer::make(ThreadTimer::Use::lease, {&on_signal, SA_RESTART}, CLOCK_BOOTTIME,
                                 cutter->target_);
  if (!timer) return fail(timer.error());
  cutter->timer_ = std::move(*timer);
  const MutexLock lock(lease.mutex_);
  lease.cutters_.insert(cutter.get());
  cutter->arm(lease.cut_);
  return cutter;
}

SocketCutter::~SocketCutter() {
  {
    const MutexLock lock(lease_.mutex_);
    lease_.cutters_.erase(this);
  }
  timer_.reset();
  give_back(target_);
}

void SocketCutter::arm(BootClock::time_point at) const {
  timer_->run_out_at(at.time_since_epoch());
}

int LeasedSockets::open(int domain, int type, int protocol) {
  const int socket = ::socket(domain, type | SOCK_CLOEXEC, protocol);
  if (socket < 0) return socket;
  auto cutter = SocketCutter::make(lease_, socket);
  if (!cutter) {
    ::close(socket);
    errno = ECANCELED;
    return -1;
  }
  const MutexLock lock(mutex_);
  cutters_[socket] = std::move(*cutter);
  return socket;
}

int LeasedSockets::close(int socket) {
  {
    const MutexLock lock(mutex_);
    cutters_.erase(socket);
  }
  return ::close(socket);
}

}  // namespace relay
