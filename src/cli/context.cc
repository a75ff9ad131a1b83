#include "cli/context.h"

#include <fmt/core.h>

#include <cstdio>
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

int run_guarded(std::string_view program, const std::function<int()>& commands) {
  shortage::say_before_ending();
  try {
    return commands();
  } catch (const std::exception& exception) {
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
