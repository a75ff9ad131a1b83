#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>

#include "admin/routes.h"
#include "cli/commands.h"
#include "cli/throwaway_postgres.h"
#include "coordinator/coordinator.h"
#include "core/log.h"

namespace relay::cli {

namespace {

using postgres::Connection;

constexpr std::chrono::seconds kTimeout{60};

/// What a user would write to get here: a table, a stream table over it, its outbox, a pipeline.
/// (The program's own sessions look nothing up in the schema public.)
constexpr std::string_view kDemo = R"sql(
set search_path to public;

create table orders (
  id bigint generated always as identity primary key,
  region text not null,
  amount numeric(12, 2) not null,
  created_at timestamptz not null default now());

select pgtrickle.create_stream_table(
  'revenue_by_region',
  $$select region, created_at::date as day, sum(amount) as revenue, count(*) as order_count
    from orders group by region, created_at::date$$,
  schedule => '500ms',
  key_columns => array['region', 'day']);

select pgtrickle.enable_outbox('revenue_by_region');
select pgtrickle.set_relay_outbox('revenue-to-screen',
  config => '{"stream_table": "revenue_by_region", "sink_type": "stdout"}'::jsonb);
select pgtrickle.enable_relay('revenue-to-screen');
)sql";

constexpr std::string_view kOrder =
    "insert into public.orders (region, amount) values ((array['europe', 'asia', 'americas', "
    "'africa'])"
    "[1 + floor(random() * 4)::int], round((5 + random() * 495)::numeric, 2))";

/// Writes orders at a rate until it is stopped, and sometimes corrects or cancels one.
class Customers {
 public:
  Customers(std::string url, int rate)
      : thread_(
            [this, url = std::move(url), rate](std::stop_token stop) { run(url, rate, stop); }) {}

  std::int64_t orders() const { return orders_; }
  void stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run(const std::string& url, int rate, std::stop_token stop) {
    Connection::Options options;
    options.url = url;
    options.application_name = "quickstart customers";
    auto connection = Connection::open(options, stop);
    if (!connection) {
      print_error(connection.error());
      return;
    }
    const auto step = std::chrono::duration_cast<SteadyClock::duration>(
        std::chrono::duration<double>(1.0 / rate));
    auto next = SteadyClock::now();
    while (!stop.stop_requested()) {
      const auto written = (*connection)->query(kOrder, {}, Deadline::after(kTimeout), stop);
      if (!written) return;
      ++orders_;
      next += step;
      std::this_thread::sleep_until(next);
    }
  }

  std::atomic<std::int64_t> orders_ = 0;
  std::jthread thread_;
};

Result<void> prepare(const ThrowawayPostgres& server) {
  Connection::Options options;
  options.url = server.url();
  auto connection = Connection::open(options, {});
  if (!connection) return fail(connection.error());
  return (*connection)->script(kDemo, Deadline::after(kTimeout), {});
}

/// One of these signals is pending; a later sigwait returns it.
bool interrupted(const sigset_t& signals) {
  sigset_t pending;
  sigpending(&pending);
  return std::ranges::any_of(std::array{SIGTERM, SIGINT}, [&](int signal) {
    return sigismember(&signals, signal) == 1 && sigismember(&pending, signal) == 1;
  });
}

void wait_for_end(double duration, const sigset_t& signals) {
  if (duration <= 0) {
    int signal = 0;
    sigwait(&signals, &signal);
    return;
  }
  timespec time{};
  time.tv_sec = static_cast<time_t>(duration);
  time.tv_nsec = static_cast<long>((duration - static_cast<double>(time.tv_sec)) * 1e9);
  sigtimedwait(&signals, nullptr, &time);
}

void summarise(const PipelineMetrics& metrics, std::int64_t orders, double seconds) {
  const double deltas = metrics.delivered.Value();
  const auto latency = metrics.end_to_end_quantiles();
  fmt::print(stderr,
             "\n{:.0f} s: {} orders written ({:.1f}/s), {:.0f} deltas delivered ({:.1f}/s), {:.0f} "
             "errors\nfrom the delta being written to the screen: half within {}, 99 of 100 within "
             "{}\n",
             seconds, orders, static_cast<double>(orders) / seconds, deltas, deltas / seconds,
             metrics.errors.Value(), latency.median, latency.p99);
}

/// The default of a setting, as its row has it.
std::string_view default_of(std::string_view setting) {
  const auto row = std::ranges::find(config::settings_table(), setting,
                                     [](const config::Setting& one) { return one.field.name; });
  return row->field.default_text;
}

}  // namespace

int quickstart(Context& context, const QuickstartArguments& arguments) {
  if (arguments.rate < 1) {
    fmt::print(stderr, "error: --rate is at least 1\n");
    return kUsage;
  }
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  log::configure(log::Format::text, log::Level::warn);

  fmt::print(stderr, "starting a throw-away PostgreSQL ...\n");
  auto server = ThrowawayPostgres::start(arguments.directory);
  if (!server) return failed(server.error());
  context.settings.postgres_url = (*server)->url();
  if (context.settings.metrics_addr == default_of("metrics_addr")) {
    context.settings.metrics_addr = "127.0.0.1:0";  // of this machine alone, beside a real relay
  }
  if (interrupted(signals)) return kOk;
  if (const auto installed = install_database_side(context); !installed) {
    return failed(installed.error());
  }
  if (const auto prepared = prepare(**server); !prepared) return failed(prepared.error());
  if (interrupted(signals)) return kOk;

  Metrics metrics(kMetricsPrefix);
  coordinator::Coordinator coordinator(context.settings, context.registry, metrics, nullptr);
  auto admin = admin::serve(context.settings.metrics_addr, coordinator, metrics,
                            context.settings.admin_token);
  if (!admin) return failed(admin.error());
  fmt::print(stderr,
             "look around:  psql {}\n"
             "health:       curl http://127.0.0.1:{}/health\n"
             "metrics:      curl http://127.0.0.1:{}/metrics\n"
             "orders come in at {} a second; each delta of revenue_by_region follows. "
             "Ctrl-C ends it.\n\n",
             (*server)->url(), (*admin)->port(), (*admin)->port(), arguments.rate);
  coordinator.start();
  const auto began = SteadyClock::now();
  Customers customers((*server)->url(), arguments.rate);
  wait_for_end(arguments.duration, signals);
  customers.stop();
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  coordinator.stop();
  (*admin)->stop();
  summarise(*metrics.pipeline("revenue-to-screen"), customers.orders(), seconds);
  return kOk;
}

}  // namespace relay::cli
