#include "cli/timed_writer.h"

#include <chrono>
#include <utility>

#include "cli/context.h"
#include "core/deadline.h"
#include "postgres/connection.h"

namespace relay::cli {

using postgres::Connection;

namespace {

constexpr std::chrono::seconds kTimeout{60};

}  // namespace

TimedWriter::TimedWriter(std::string url, std::string statement, int rate)
    : thread_([this, url = std::move(url), statement = std::move(statement),
               rate](std::stop_token stop) { run(url, statement, rate, stop); }) {}

void TimedWriter::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void TimedWriter::run(const std::string& url, const std::string& statement, int rate,
                      std::stop_token stop) {
  Connection::Options options;
  options.url = url;
  options.application_name = "quickstart customers";
  auto connection = Connection::open(options, stop);
  if (!connection) {
    print_error(connection.error());
    return;
  }
  const auto step =
      std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(1.0 / rate));
  auto next = SteadyClock::now();
  while (!stop.stop_requested()) {
    if (!(*connection)->query(statement, {}, Deadline::after(kTimeout), stop)) return;
    ++written_;
    next += step;
    std::this_thread::sleep_until(next);
  }
}

}  // namespace relay::cli
