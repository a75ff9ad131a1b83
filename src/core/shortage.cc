#include "core/shortage.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>

#include "core/text.h"

namespace relay::shortage {

namespace {

constexpr std::string_view kMoreMemory =
    "raise the limit of memory of the process (ulimit -v, MemoryMax= of its unit, the container's "
    "limit), or ask for less: lower batch_bytes and max_record_bytes, or run fewer pipelines here";
constexpr std::string_view kMoreThreads =
    "raise the limits of memory and of threads of the process (ulimit -v and -u, MemoryMax= and "
    "TasksMax= of its unit, the container's limits), or run fewer pipelines here";
constexpr std::string_view kMoreDescriptors =
    "raise the limit of open files of the process (ulimit -n, LimitNOFILE= of its unit), or run "
    "fewer pipelines here";

/// Descriptors that a connection needs beside its socket: pipes and timers of its library, and one
/// to resolve a name.
constexpr std::size_t kDescriptorsOfAnAttempt = 8;

rlim_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  return ::getrlimit(resource, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

std::string memory_limit() {
  const rlim_t bytes = limit_of(RLIMIT_AS);
  if (bytes == RLIM_INFINITY) return {};
  return fmt::format(" (its address space may take {} MiB)", bytes >> 20);
}

Error out_of_memory(std::string_view doing) {
  return {ErrorClass::transient,
          "out_of_memory",
          fmt::format("{}: this process has run out of memory{}", doing, memory_limit()),
          std::string(kMoreMemory),
          {}};
}

Error out_of_threads(std::string_view doing) {
  return {ErrorClass::transient,
          "out_of_threads",
          fmt::format("{}: this process can start no further thread{}", doing, memory_limit()),
          std::string(kMoreThreads),
          {}};
}

bool no_descriptor_left() {
  std::array<int, kDescriptorsOfAnAttempt> opened{};
  std::size_t count = 0;
  while (count < opened.size()) {
    const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) break;
    opened[count++] = descriptor;
  }
  for (std::size_t i = 0; i < count; ++i) ::close(opened[i]);
  return count < opened.size();
}

/// Libraries report only in their message that they were refused memory. libpq does so when it has
/// no room for a message of the server (pqParseInput3, fe-protocol3.c).
bool tells_of_memory(std::string_view text) {
  const bool limited = limit_of(RLIMIT_AS) != RLIM_INFINITY;
  return contains_ignoring_case(text, "out of memory") ||
         contains_ignoring_case(text, "cannot allocate memory") ||
         (limited && contains_ignoring_case(text, "lost synchronization with server"));
}

/// False for an error that the server reported: an SQLSTATE, or the status of a response.
bool is_about_reaching(const Error& error) {
  const bool is_state =
      error.code.size() == 5 && error.code.front() >= '0' && error.code.front() <= '9';
  return error.error_class == ErrorClass::transient && !is_state &&
         !error.code.starts_with("http_");
}

[[noreturn]] void end() {
  bool limited = false;
  std::string text = "ended without an exception";
  if (const auto exception = std::current_exception()) {
    try {
      std::rethrow_exception(exception);
    } catch (const std::exception& what) {
      const Error error = error_of(what, "running");
      limited = error.code != "internal";
      text = fmt::format("{} Remedy: {}", error.message, error.remedy);
    } catch (...) {
      text = "ended by an exception of no known type";
    }
  }
  text = fmt::format("fatal: {}\n", text);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  if (limited) ::_exit(1);
  std::abort();
}

}  // namespace

Error error_of(const std::exception& exception, std::string_view doing) {
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) return out_of_memory(doing);
  const std::string_view what = exception.what();
  // std::thread throws a system_error, Boost an exception of its own that begins with "thread: ".
  const auto* system = dynamic_cast<const std::system_error*>(&exception);
  const bool refused =
      system != nullptr && system->code() == std::errc::resource_unavailable_try_again;
  if (refused || what.starts_with("thread: ")) return out_of_threads(doing);
  if (tells_of_memory(what)) return out_of_memory(doing);
  return {ErrorClass::transient,
          "internal",
          fmt::format("{}: {}", doing, what),
          "this is a defect of the relay: please report it with this line",
          {}};
}

Error explained(Error error) {
  if (!is_about_reaching(error)) return error;
  if (no_descriptor_left()) {
    error.message += fmt::format("; this process has no file descriptor left of its {}",
                                 limit_of(RLIMIT_NOFILE));
    error.code = "out_of_descriptors";
    error.remedy = kMoreDescriptors;
  } else if (error.code == "connection" && tells_of_memory(error.message)) {
    error.message += fmt::format("; this process has run out of memory{}", memory_limit());
    error.code = "out_of_memory";
    error.remedy = kMoreMemory;
  }
  return error;
}

void say_before_ending() {
  std::set_terminate(end);
}

}  // namespace relay::shortage
