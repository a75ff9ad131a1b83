#include "admin/routes.h"
#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/signals.h"
#include "coordinator/coordinator.h"
#include "core/log.h"

namespace relay::cli {

namespace {

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

}  // namespace

int run_relay(Context& context) {
  log::configure_by_name(context.settings.log_format, context.settings.log_level);
  const Signals signals;

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
  while (signals.next() == Signals::Wish::reload) {
    log::info("reload", "", "reading the configuration file again");
    coordinator.reload();
  }
  signals.shut_down([&] { coordinator.stop(); });
  (*server)->stop();
  log::info("stopped", "", "all pipelines ended, positions written");
  return kOk;
}

}  // namespace relay::cli
