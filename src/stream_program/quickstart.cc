#include "stream_program/quickstart.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include "admin/http_server.h"
#include "admin/routes.h"
#include "cli/context.h"
#include "cli/interrupt.h"
#include "cli/live_capture.h"
#include "cli/throwaway_postgres.h"
#include "cli/timed_writer.h"
#include "core/log.h"
#include "pipeline/metrics.h"
#include "postgres/connection.h"
#include "stream_program/configuration.h"
#include "stream_program/daemon.h"
#include "stream_program/database_side.h"

namespace relay::stream_program {

namespace {

using postgres::Connection;

constexpr std::chrono::seconds kTimeout{60};
/// Of delivery before the sink goes down.
constexpr double kBeforeOutage = 6;

/// What a user would write to get here: a table, and a subscription to it.
constexpr std::string_view kDemo = R"sql(
select pgstream.add_stream(1);

create table public.users (
  id bigint generated always as identity primary key,
  email text not null,
  email_verified boolean not null,
  created_at timestamptz not null default now());

insert into pgstream.subscriptions (
  key, stream_id, operation, schema_name, table_name, when_clause, column_names, payload_extensions
) values (
  'user-signup', 1, 'INSERT', 'public', 'users',
  'new.email_verified = true', array['id', 'email', 'created_at'], '[]');
)sql";

constexpr const char* kSignUp =
    "insert into public.users (email, email_verified) "
    "values (format('user%s@example.com', floor(random() * 100000)), random() < 0.7)";

constexpr const char* kConfiguration = R"(stream:
  id: 1
  pg_connection: {{host: 127.0.0.1, port: {}, name: postgres, username: postgres}}
  failover_after: 1s
  retry: {{max: 1s}}
sink:
  type: http
  url: http://127.0.0.1:{}/events
  allow_private: true
)";

/// The sink: a web server that prints what it is sent, and refuses it while it is down.
class Screen {
 public:
  Result<void> start() {
    auto server = admin::HttpServer::start(
        "127.0.0.1:0", {.handler = [this](const auto& request) { return take(request.body); }});
    if (!server) return fail(server.error());
    server_ = std::move(*server);
    return {};
  }
  int port() const { return server_->port(); }
  void set_down(bool down) { down_ = down; }
  void stop() { server_->stop(); }

 private:
  admin::HttpResponse take(const std::string& event) {
    if (down_) return {.status = 503, .body = "down\n", .headers = {}};
    fmt::print("{}\n", event);
    std::fflush(stdout);
    return {.status = 204, .body = "", .headers = {}};
  }

  std::atomic<bool> down_ = false;
  std::unique_ptr<admin::HttpServer> server_;
};

Result<void> prepare(const std::string& url) {
  Connection::Options options;
  options.url = url;
  auto connection = Connection::open(options, {});
  if (!connection) return fail(connection.error());
  if (auto installed = install(**connection, {}); !installed) return fail(installed.error());
  return (*connection)->script(kDemo, Deadline::after(kTimeout), {});
}

/// False: interrupted. `seconds` below 0 is no limit.
bool goes_on(const cli::Interrupt& interrupt, double seconds) {
  if (seconds >= 0) return !interrupt.wait(seconds);
  interrupt.wait();
  return false;
}

/// Delivers for the duration, with one outage of the sink.
void run(const QuickstartArguments& arguments, const cli::Interrupt& interrupt, Screen& screen,
         const cli::TimedWriter& users) {
  const double limit =
      arguments.duration > 0 ? arguments.duration : std::numeric_limits<double>::infinity();
  if (!goes_on(interrupt, std::min(limit, kBeforeOutage)) || limit <= kBeforeOutage) return;
  fmt::print(stderr,
             "\nthe sink is down. The daemon goes on with the log, and notes in pgstream.backlog "
             "what is to be delivered ...\n");
  screen.set_down(true);
  const std::int64_t before = users.written();
  if (!goes_on(interrupt, arguments.outage)) return;
  fmt::print(stderr,
             "the sink is up again. {} users signed up meanwhile; the events follow in order.\n\n",
             users.written() - before);
  screen.set_down(false);
  const double left = limit - kBeforeOutage - arguments.outage;
  goes_on(interrupt, arguments.duration > 0 ? std::max(left, 0.) : -1);
}

}  // namespace

int quickstart(const Registry& registry, const QuickstartArguments& arguments) {
  const cli::Interrupt interrupt;
  log::configure(log::Format::text, log::Level::error);

  fmt::print(stderr, "starting a throw-away PostgreSQL ...\n");
  auto server = cli::ThrowawayPostgres::start(arguments.directory, {"wal_level=logical"});
  if (!server) return cli::failed(server.error());
  if (interrupt.pending()) return cli::kOk;
  if (const auto prepared = prepare((*server)->url()); !prepared) {
    return cli::failed(prepared.error());
  }
  Screen screen;
  if (const auto started = screen.start(); !started) return cli::failed(started.error());
  const std::string text = fmt::format(kConfiguration, (*server)->port(), screen.port());
  Configuration configuration =
      read_configuration(registry.catalogue(), text, "the quickstart's config.yaml", {});
  for (const Error& problem : configuration.problems) cli::print_error(problem);
  if (!configuration.problems.empty()) return cli::kFailed;
  if (interrupt.pending()) return cli::kOk;

  Metrics metrics("postgres_stream_");
  Daemon daemon(std::move(configuration), registry, metrics);
  auto admin = admin::serve("127.0.0.1:0", daemon, metrics, {});
  if (!admin) return cli::failed(admin.error());
  fmt::print(stderr,
             "config.yaml:\n{}\n"
             "look around:  psql {}\n"
             "health:       curl http://127.0.0.1:{}/health\n"
             "{} users a second sign up; the event of each verified one follows. Ctrl-C ends "
             "it.\n\n",
             text, (*server)->url(), (*admin)->port(), arguments.rate);
  auto live = cli::LiveCapture::begin(
      fmt::format("events of {} sign-ups a second; Ctrl-C ends it", arguments.rate));
  daemon.start();
  cli::TimedWriter users((*server)->url(), kSignUp, arguments.rate);
  run(arguments, interrupt, screen, users);
  users.stop();
  screen.set_down(false);
  daemon.stop();
  (*admin)->stop();
  screen.stop();
  live.reset();
  fmt::print(stderr, "\n{} users signed up, {:.0f} events delivered\n", users.written(),
             metrics.pipeline("stream-1")->delivered.Value());
  return cli::kOk;
}

}  // namespace relay::stream_program
