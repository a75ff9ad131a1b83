#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/live_screen.h"
#include "cli/text_width.h"
#include "coordinator/assembly.h"
#include "core/deadline.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{15};
constexpr std::chrono::milliseconds kLookEvery{100};

/// The pipeline's configuration, from the database or the file.
Result<config::PipelineConfig> find_pipeline(const Context& context, const std::string& name) {
  for (const auto& pipeline : context.file_pipelines) {
    if (pipeline.name == name) return pipeline;
  }
  auto connection = connect(context);
  if (!connection) return fail(connection.error());
  const auto rows = (*connection)
                        ->query(
                            "select direction, enabled, config::text "
                            "from pgtrickle.relay_pipelines where name = $1",
                            {name}, Deadline::after(kTimeout), {});
  if (!rows) return fail(rows.error());
  if (rows->empty()) {
    return fail(ErrorClass::misconfigured, "no_pipeline",
                fmt::format("there is no pipeline {}", name),
                "`pgtrickle-relay pipelines list` names those that there are");
  }
  return config::pipeline_from_json(context.registry.catalogue(), name, rows->text(0, 0),
                                    rows->boolean(0, 1), rows->text(0, 2), context.settings.access);
}

void print(const Context& context, const Message& message) {
  if (context.json) {
    fmt::print(R"({{"id":{},"subject":{},"key":{},"op":{},"body":{}}})"
               "\n",
               json_string(message.id), json_string(secrets::masked(message.subject)),
               json_string(message.key), json_string(message.op), json_string(message.body));
  } else if (message.refused) {
    fmt::print("{}  refused: {}\n", message.id, secrets::masked(message.refused->message));
  } else {
    fmt::print("{}  {}\n", secrets::masked(message.subject), message.body);
  }
  std::fflush(stdout);
}

/// Where messages go: lines, or a live table.
class Output {
 public:
  /// Made before any thread is: signals are for this object then.
  Output(const Context& context, bool pretty) : context_(context) {
    if (pretty && !context.json && Terminal::out().cursor) interrupt_.emplace();
  }

  void begin(const std::string& pipeline) {
    if (!interrupt_) return;
    screen_.emplace(STDOUT_FILENO,
                    fmt::format("pipeline {}, live; Ctrl-C ends it", printable(pipeline)));
  }
  void end() { screen_.reset(); }

  void take(const Message& message) {
    if (!screen_) return print(context_, message);
    if (message.refused) {
      screen_->note(
          fmt::format("{}  refused: {}", message.id, secrets::masked(message.refused->message)));
    } else {
      screen_->take(message.body);
    }
  }
  void draw() {
    if (screen_) screen_->draw();
  }
  /// A pipe whose reader has gone ends it too.
  bool is_over() const { return (interrupt_ && interrupt_->pending()) || std::ferror(stdout) != 0; }

 private:
  const Context& context_;
  std::optional<Interrupt> interrupt_;
  std::optional<LiveScreen> screen_;
};

Result<void> watch(coordinator::Tail& watching, Output& output, std::int64_t count) {
  std::int64_t printed = 0;
  while ((count == 0 || printed < count) && !output.is_over()) {
    auto batch = watching.source->read({}, Deadline::after(kLookEvery), {});
    if (!batch) return fail(batch.error());
    output.draw();
    if (batch->empty()) {
      watching.wake->poke();  // no sweep announces new rows here
      continue;
    }
    const MessageBatch messages = watching.encoder->encode(std::move(*batch));
    for (const Message& message : messages.messages) {
      if (count > 0 && printed == count) break;
      output.take(message);
      ++printed;
    }
    output.draw();
  }
  return {};
}

}  // namespace

int tail(const Context& context, const TailArguments& arguments) {
  Output output(context, arguments.pretty);
  const auto config = find_pipeline(context, arguments.pipeline);
  if (!config) return failed(config.error());
  postgres::Connection::Options options;
  options.url = context.settings.postgres_url;
  options.application_name = "pgtrickle-relay tail";
  postgres::Pool pool(options, 1);
  auto watching = coordinator::assemble_tail(
      *config, context.registry, pool, arguments.from ? std::to_string(*arguments.from) : "latest");
  if (!watching) return failed(watching.error());
  if (const auto opened = watching->source->open({}); !opened) return failed(opened.error());
  output.begin(arguments.pipeline);
  const auto watched = watch(*watching, output, arguments.count);
  output.end();
  watching->source->close();
  if (!watched) return failed(watched.error());
  return kOk;
}

}  // namespace relay::cli
