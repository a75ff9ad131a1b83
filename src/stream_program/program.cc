#include "stream_program/program.h"

#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "admin/routes.h"
#include "cli/command_line.h"
#include "cli/config_file.h"
#include "cli/context.h"
#include "cli/manual.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "coordinator/assembly.h"
#include "core/log.h"
#include "stream_program/check.h"
#include "stream_program/configuration.h"
#include "stream_program/daemon.h"
#include "stream_program/quickstart.h"

namespace relay::stream_program {

namespace {

constexpr std::string_view kName = "postgres-stream";
constexpr std::string_view kAbout =
    "delivers the events of pgstream.subscriptions from PostgreSQL to a sink";
constexpr double kMostSeconds = 366.0 * 24 * 3600;
constexpr double kMostPerSecond = 100'000;

/// The configuration with all problems that can be found without a connection.
Configuration load(const Registry& registry, const std::string& path) {
  Configuration configuration;
  const auto text = cli::read_config_file(
      path,
      "write it, see docs/running-postgres-stream.md, or name another file with --config FILE");
  if (!text) {
    configuration.problems.push_back(text.error());
    return configuration;
  }
  configuration = read_configuration(registry.catalogue(), *text, path, overrides_of(::environ));
  for (const StreamConfig& stream : configuration.streams) {
    if (stream.pipeline.sink_type.empty()) continue;
    for (Error& problem : coordinator::problems_of(stream.pipeline, registry)) {
      configuration.problems.push_back(std::move(problem));
    }
  }
  return configuration;
}

int refuse(const Configuration& configuration) {
  for (const Error& problem : configuration.problems) cli::print_error(problem);
  return cli::kInvalidConfiguration;
}

void reload(Daemon& daemon, const Registry& registry, const std::string& path) {
  log::info("reload", "", "reading {} again", path);
  Configuration configuration = load(registry, path);
  if (configuration.problems.empty()) {
    daemon.follow(std::move(configuration.streams));
    log::recovered("reload", "");
    return;
  }
  for (const Error& problem : configuration.problems) log::failure("reload", "", problem);
}

int run(Configuration configuration, const Registry& registry, const std::string& path) {
  log::configure_by_name(configuration.settings.log_format, configuration.settings.log_level);
  const cli::Signals signals;
  const std::string address = configuration.settings.metrics_addr;
  Metrics metrics("postgres_stream_");
  Daemon daemon(std::move(configuration), registry, metrics);
  auto server = admin::serve(address, daemon, metrics, {});
  if (!server) return cli::failed(server.error());
  log::info("started", "", "version {}, metrics and health on port {}", RELAY_VERSION,
            (*server)->port());
  daemon.start();
  while (signals.next() == cli::Signals::Wish::reload) reload(daemon, registry, path);
  signals.shut_down([&] { daemon.stop(); });
  (*server)->stop();
  log::info("stopped", "", "all streams ended");
  return cli::kOk;
}

/// What the command line says.
struct Arguments {
  std::string path = "config.yaml";
  bool json = false;
  QuickstartArguments demo;
  bool resend = false;
  bool skip = false;
};

void add_quickstart(CLI::App& app, QuickstartArguments& demo) {
  CLI::App* const quick = app.add_subcommand(
      "quickstart", "a throw-away PostgreSQL with live events: nothing to configure");
  cli::allow(quick->add_option("--rate", demo.rate, "users a second")->capture_default_str(), 1,
             kMostPerSecond);
  cli::allow(quick->add_option("--duration", demo.duration, "seconds (0: until interrupted)"), 0,
             kMostSeconds);
  cli::allow(quick->add_option("--outage", demo.outage, "seconds for which the sink is down, once")
                 ->capture_default_str(),
             0, kMostSeconds);
  quick
      ->add_option("--directory", demo.directory,
                   "for the server's data; created, and deleted at the end")
      ->type_name("DIR");
}

void add_commands(CLI::App& app, Arguments& arguments) {
  app.require_subcommand(0, 1);
  app.fallthrough();
  app.add_option("--config", arguments.path, "the configuration")
      ->type_name("FILE")
      ->capture_default_str();
  app.add_flag("--json", arguments.json, "print JSON");
  app.add_subcommand("run", "deliver the streams (what it does without a command)");
  app.add_subcommand("check",
                     "report every problem of configuration, database and sink; changes nothing");
  add_quickstart(app, arguments.demo);
  CLI::Option* const resending =
      app.add_flag("--resend", arguments.resend,
                   "after a restore or an upgrade as another system: deliver what is not known to "
                   "be settled");
  app.add_flag("--skip", arguments.skip, "the same: begin with what comes from now on")
      ->excludes(resending);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    command->footer(std::string(cli::kExitCodes));
  }
  app.footer(
      fmt::format("POSTGRES_STREAM__STREAM__ID and the like override single values of the "
                  "configuration.\n\n{}",
                  cli::kExitCodes));
}

std::string manual(const cli::CommandTree& program, const Registry& registry) {
  cli::ManualPage page{
      .version = RELAY_VERSION,
      .description =
          "It reads the events that the subscriptions of a database "
          "make, by logical replication or by queries, and sends them "
          "to a sink in the order of the commits. config.yaml, or the "
          "file of --config, says which.",
      .tables = {{"Options of a stream, as of any pipeline", config::pipeline_fields()}},
      .see_also = {"pgtrickle-relay(1)"}};
  for (const SinkType& sink : registry.sinks()) {
    page.tables.push_back({fmt::format("Sink {}", sink.name), sink.options});
  }
  return cli::manual_page(program, page);
}

int dispatch(const std::string& command, const Arguments& arguments, const Registry& registry) {
  if (command == "quickstart") return quickstart(registry, arguments.demo);
  Configuration configuration = load(registry, arguments.path);
  if (command == "check") return check(configuration, registry, arguments.json);
  if (!configuration.problems.empty()) return refuse(configuration);
  if (arguments.resend) configuration.settings.other_system = OtherSystem::resend;
  if (arguments.skip) configuration.settings.other_system = OtherSystem::skip;
  return run(std::move(configuration), registry, arguments.path);
}

int run_commands(int argc, char** argv, void (*add_backends)(Registry&)) {
  CLI::App app{std::string(kAbout), std::string(kName)};
  Registry registry;
  add_backends(registry);
  Arguments arguments;
  add_commands(app, arguments);
  cli::CommandLine line(
      app, {[&] {
              return arguments.json ? cli::version_json(kName, registry)
                                    : cli::version_text(kName, registry);
            },
            [&](const cli::CommandTree& program) { return manual(program, registry); }});
  if (const auto code = line.parse(argc, argv)) return *code;
  const auto given = app.get_subcommands();
  return dispatch(given.empty() ? "run" : given.front()->get_name(), arguments, registry);
}

}  // namespace

int run_program(int argc, char** argv, void (*add_backends)(Registry&)) {
  return cli::run_guarded("postgres-stream",
                          [&] { return run_commands(argc, argv, add_backends); });
}

}  // namespace relay::stream_program
