#include "cli/context.h"

#include <fmt/core.h>

#include <cstdio>

#include "core/deadline.h"
#include "core/secrets.h"

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

Result<std::unique_ptr<postgres::Connection>> connect(const Context& context) {
  postgres::Connection::Options options;
  options.url = context.settings.postgres_url;
  options.application_name = "pgtrickle-relay command";
  options.keepalive = true;  // a session of its own, which a transaction pooler does not give
  return postgres::Connection::open(options, {});
}

}  // namespace relay::cli
