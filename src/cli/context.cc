#include "cli/context.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>

#include "core/deadline.h"
#include "core/secrets.h"
#include "core/shortage.h"

namespace relay::cli {

void print_error(const Error& error) {
  fmt::print(stderr, "error: {}\n", secrets::masked(error.message));
  if (!error.remedy.empty()) {
    fmt::print(stderr, "  remedy: {}\n", secrets::masked(error.remedy));
  }
}

int failed(const Error& error) {
  print_error(error);
  return kFailed;
}

namespace {

/// What was printed may still be in memory: a full disk is only seen now.
int with_output(int code) {
  errno = 0;
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (written || code != kOk) return code;
  return failed({ErrorClass::transient,
                 "output",
                 fmt::format("standard output cannot be written: {}",
                             errno != 0 ? std::strerror(errno) : "an earlier part was lost"),
                 "what was printed is not complete: make room, and run it again",
                 {}});
}

}  // namespace

int run_guarded(std::string_view program, const std::function<int()>& commands) {
  shortage::say_before_ending();
  try {
    return with_output(commands());
  } catch (const std::exception& exception) {
    if (std::ferror(stdout) != 0) return with_output(kOk);
    return failed(shortage::error_of(exception, program));
  }
}

Result<std::unique_ptr<postgres::Connection>> connect(const Context& context) {
  postgres::Connection::Options options;
  options.url = context.settings.postgres_url;
  options.application_name = "pgtrickle-relay command";
  options.keepalive = true;  // a session of its own, which a transaction pooler does not give
  return postgres::Connection::open(options, {});
}

}  // namespace relay::cli
