#include "stream_program/program.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "admin/routes.h"
#include "cli/config_file.h"
#include "cli/context.h"
#include "cli/signals.h"
#include "coordinator/assembly.h"
#include "core/log.h"
#include "stream_program/check.h"
#include "stream_program/configuration.h"
#include "stream_program/daemon.h"
#include "stream_program/quickstart.h"

namespace relay::stream_program {

namespace {

constexpr std::string_view kAbout =
    "Delivers the events of pgstream.subscriptions from PostgreSQL to a sink";

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

int run_commands(int argc, char** argv, void (*add_backends)(Registry&)) {
  CLI::App app(std::string(kAbout), "postgres-stream");
  app.set_version_flag("--version", "postgres-stream " RELAY_VERSION);
  app.require_subcommand(0, 1);
  app.fallthrough();
  std::string path = "config.yaml";
  app.add_option("--config", path, "the configuration")->type_name("FILE")->capture_default_str();
  app.add_subcommand("run", "deliver the streams (what it does without a command)");
  const CLI::App* checking = app.add_subcommand(
      "check", "report every problem of configuration, database and sink; changes nothing");
  QuickstartArguments demo;
  CLI::App* const quick = app.add_subcommand(
      "quickstart", "a throw-away PostgreSQL with live events: nothing to configure");
  quick->add_option("--rate", demo.rate, "users a second")->capture_default_str();
  quick->add_option("--duration", demo.duration, "seconds (0: until interrupted)");
  quick->add_option("--outage", demo.outage, "seconds for which the sink is down, once")
      ->capture_default_str();
  quick->add_option("--directory", demo.directory,
                    "for the server's data; created, and deleted at the end");
  bool resend = false;
  bool skip = false;
  CLI::Option* const resending =
      app.add_flag("--resend", resend,
                   "after a restore or an upgrade as another system: deliver what is not known to "
                   "be settled");
  app.add_flag("--skip", skip, "the same: begin with what comes from now on")->excludes(resending);
  app.footer(
      "POSTGRES_STREAM__STREAM__ID and the like override single values of the configuration.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? cli::kOk : cli::kUsage;
  }
  Registry registry;
  add_backends(registry);
  if (quick->parsed()) return quickstart(registry, demo);
  Configuration configuration = load(registry, path);
  if (checking->parsed()) return check(configuration, registry);
  if (!configuration.problems.empty()) return refuse(configuration);
  if (resend) configuration.settings.other_system = OtherSystem::resend;
  if (skip) configuration.settings.other_system = OtherSystem::skip;
  return run(std::move(configuration), registry, path);
}

}  // namespace

int run_program(int argc, char** argv, void (*add_backends)(Registry&)) {
  return cli::run_guarded("postgres-stream",
                          [&] { return run_commands(argc, argv, add_backends); });
}

}  // namespace relay::stream_program
