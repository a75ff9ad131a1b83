#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "admin/routes.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/live_capture.h"
#include "cli/throwaway_postgres.h"
#include "cli/timed_writer.h"
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

constexpr const char* kOrder =
    "insert into public.orders (region, amount) values ((array['europe', 'asia', 'americas', "
    "'africa'])"
    "[1 + floor(random() * 4)::int], round((5 + random() * 495)::numeric, 2))";

Result<void> prepare(const ThrowawayPostgres& server) {
  Connection::Options options;
  options.url = server.url();
  auto connection = Connection::open(options, {});
  if (!connection) return fail(connection.error());
  return (*connection)->script(kDemo, Deadline::after(kTimeout), {});
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
  const Interrupt interrupt;
  log::configure(log::Format::text, log::Level::warn);

  fmt::print(stderr, "starting a throw-away PostgreSQL ...\n");
  auto server = ThrowawayPostgres::start(arguments.directory, {});
  if (!server) return failed(server.error());
  context.settings.postgres_url = (*server)->url();
  if (context.settings.metrics_addr == default_of("metrics_addr")) {
    context.settings.metrics_addr = "127.0.0.1:0";  // of this machine alone, beside a real relay
  }
  if (interrupt.pending()) return kOk;
  if (const auto installed = install_database_side(context); !installed) {
    return failed(installed.error());
  }
  if (const auto prepared = prepare(**server); !prepared) return failed(prepared.error());
  if (interrupt.pending()) return kOk;

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
  auto live = LiveCapture::begin(
      fmt::format("revenue_by_region, at {} orders a second; Ctrl-C ends it", arguments.rate));
  coordinator.start();
  const auto began = SteadyClock::now();
  TimedWriter customers((*server)->url(), kOrder, arguments.rate);
  if (arguments.duration > 0) {
    interrupt.wait(arguments.duration);
  } else {
    interrupt.wait();
  }
  customers.stop();
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  coordinator.stop();
  (*admin)->stop();
  live.reset();
  summarise(*metrics.pipeline("revenue-to-screen"), customers.written(), seconds);
  return kOk;
}

}  // namespace relay::cli
