#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

#include "admin/routes.h"
#include "cli/commands.h"
#include "cli/config_file.h"
#include "coordinator/coordinator.h"
#include "core/log.h"
#include "core/shortage.h"

namespace relay::cli {

namespace {

/// The signals that steer the program. They are blocked in all threads; `next_signal` takes them.
sigset_t steering_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

int next_signal(const sigset_t& set) {
  int signal = 0;
  sigwait(&set, &signal);
  return signal;
}

coordinator::FileLoader file_loader(const Context& context) {
  if (context.settings.config_file.empty()) return nullptr;
  const std::string path = context.settings.config_file;
  return [path, &catalogue =
                    context.registry.catalogue()]() -> Result<std::vector<config::PipelineConfig>> {
    auto loaded = load_config_file(catalogue, path);
    if (!loaded) return fail(loaded.error());
    if (!loaded->problems.empty()) return fail(config::combined(std::move(loaded->problems)));
    return std::move(loaded->pipelines);
  };
}

bool configure_log(const config::Settings& settings) {
  log::Level level = log::Level::info;
  if (!log::parse_level(settings.log_level, level)) return false;
  log::configure(settings.log_format == "json" ? log::Format::json : log::Format::text, level);
  return true;
}

/// Stops the coordinator; a second signal ends the process at once.
void shut_down(coordinator::Coordinator& coordinator, const sigset_t& signals) {
  log::info("stopping", "", "finishing what is in flight; a second signal ends at once");
  const auto watch = [&signals](std::stop_token stop) {
    const timespec slice{0, 50'000'000};
    while (!stop.stop_requested()) {
      const int signal = sigtimedwait(&signals, nullptr, &slice);
      if (signal == SIGTERM || signal == SIGINT) ::_exit(130);
    }
  };
  std::jthread watchdog;
  try {
    watchdog = std::jthread(watch);
  } catch (const std::exception& exception) {
    log::failure("stopping", "", shortage::error_of(exception, "watching for a second signal"));
  }
  coordinator.stop();
}

}  // namespace

int run_relay(Context& context) {
  if (!configure_log(context.settings)) return kUsage;
  // The write that would raise one of these fails with an error instead.
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  const sigset_t signals = steering_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Metrics metrics(kMetricsPrefix);
  coordinator::Coordinator coordinator(context.settings, context.registry, metrics,
                                       file_loader(context));
  auto server = admin::serve(context.settings.metrics_addr, coordinator, metrics,
                             context.settings.admin_token);
  if (!server) return failed(server.error());
  log::info("started", "", "version {}, metrics and health on port {}, group {}", RELAY_VERSION,
            (*server)->port(), context.settings.relay_group_id);
  for (const Error& warning : context.warnings) {
    log::warn(warning.code, "", "{} Remedy: {}", warning.message, warning.remedy);
  }
  coordinator.start();
  while (true) {
    const int signal = next_signal(signals);
    if (signal != SIGHUP) break;
    log::info("reload", "", "reading the configuration file again");
    coordinator.reload();
  }
  shut_down(coordinator, signals);
  (*server)->stop();
  log::info("stopped", "", "all pipelines ended, positions written");
  return kOk;
}

}  // namespace relay::cli
