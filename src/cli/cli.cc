#include "cli/cli.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/manual.h"
#include "cli/version.h"
#include "coordinator/assembly.h"
#include "core/log.h"
#include "core/secrets.h"
#include "postgres/current_url.h"

namespace relay::cli {

namespace {

constexpr std::string_view kAbout =
    "carries committed changes out of PostgreSQL to message systems, and messages back";

constexpr double kAnyId = 9e18;
constexpr double kMostRows = 1e6;
constexpr double kMostSeconds = 366.0 * 24 * 3600;
constexpr double kMostPerSecond = 100'000;

/// The arguments of the command line, not yet checked.
struct Arguments {
  std::map<std::string, std::string> flags;  // by flag, only those that were given
  bool json = false;
  bool dry_run = false;
  PipelineArguments pipelines;
  DlqArguments dlq;
  QuickstartArguments quickstart;
  TailArguments tail;
  ApplyArguments apply;
  ExportArguments exported;
  std::string status_pipeline;
};

/// What a value of the setting looks like in help, and what completes it.
std::string value_name(const config::Setting& setting) {
  if (setting.flag == "--config") return "FILE";
  if (setting.field.type == config::FieldType::duration) return "DURATION";
  if (setting.field.type == config::FieldType::integer) return "NUMBER";
  std::string choices(setting.field.choices);
  std::ranges::replace(choices, ',', '|');
  return choices.empty() ? "TEXT" : choices;
}

void add_settings(CLI::App& app, Arguments& arguments) {
  for (const config::Setting& setting : config::settings_table()) {
    std::string help(setting.field.meaning);
    if (!setting.field.default_text.empty()) {
      help += fmt::format(" (default {})", setting.field.default_text);
    }
    help += fmt::format(" [env {}]", setting.environment);
    const std::string flag(setting.flag);
    if (setting.field.type == config::FieldType::list) {
      app.add_option_function<std::vector<std::string>>(
             flag,
             [&arguments, flag](const std::vector<std::string>& given) {
               arguments.flags[flag] = fmt::format("{}", fmt::join(given, "\n"));
             },
             help)
          ->allow_extra_args(false)
          ->type_name("PATTERN")
          ->group("Settings");
      continue;
    }
    const auto add = [&](const std::string& name, const std::string& meaning) {
      return app
          .add_option_function<std::string>(
              name, [&arguments, name](const std::string& text) { arguments.flags[name] = text; },
              meaning)
          ->group("Settings");
    };
    CLI::Option* option = add(flag, help)->type_name(value_name(setting));
    if (!setting.field.secret) continue;
    add(config::file_flag(setting),
        fmt::format("file that holds it: arguments show in the list of processes [env {}]",
                    config::file_variable(setting)))
        ->type_name("FILE")
        ->excludes(option);
  }
}

bool is_secret_flag(std::string_view word) {
  const auto settings = config::settings_table();
  return std::any_of(settings.begin(), settings.end(), [&](const config::Setting& setting) {
    return setting.field.secret && setting.flag == word;
  });
}

/// Overwrites the values of secret flags, so that the list of processes shows them no longer.
void hide_secrets(int argc, char** argv) {
  const auto hide = [](char* text) {
    const bool url = std::strstr(text, "://") || std::strchr(text, '=');
    if (!url || !secrets::secrets_in_url(text).empty()) std::memset(text, 'x', std::strlen(text));
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view word(argv[i]);
    const auto equals = word.find('=');
    if (is_secret_flag(word) && i + 1 < argc) {
      hide(argv[++i]);
    } else if (equals != std::string_view::npos && is_secret_flag(word.substr(0, equals))) {
      hide(argv[i] + equals + 1);
    }
  }
}

/// `--wait` and `--no-wait`; without them the command waits on a terminal.
void add_wait(CLI::App& command, std::optional<bool>& wait) {
  command.add_flag_callback(
      "--wait", [&wait] { wait = true; }, "wait until it is done (what it does on a terminal)");
  command.add_flag_callback(
      "--no-wait", [&wait] { wait = false; }, "return at once: the relay does the work");
}

void add_pipeline_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* pipelines = app.add_subcommand(
      "pipelines", "list | show | enable | disable | pause | resume | replay | take-over");
  pipelines->require_subcommand(0, 1);
  const auto named = [&](const std::string& name, const std::string& help) {
    CLI::App* command = pipelines->add_subcommand(name, help);
    command->add_option("name", arguments.pipelines.name, "name of the pipeline")->required();
    command->callback([&arguments, name] { arguments.pipelines.action = name; });
    return command;
  };
  pipelines->add_subcommand("list", "all pipelines and their state");
  named("show", "one pipeline: configuration and state");
  named("enable", "lets a pipeline run");
  named("disable", "stops a pipeline and keeps its position");
  named("pause", "stops delivering until it is resumed");
  named("resume", "resumes after a pause, a stop, or lost rows")
      ->add_flag("--accept-loss", arguments.pipelines.accept_loss,
                 "resume although rows after its position are gone");
  CLI::App* replay = named("replay", "sends a range of ids once more, beside the normal flow");
  allow(replay->add_option("--from", arguments.pipelines.from, "first id")->required(), 1, kAnyId);
  allow(replay->add_option("--to", arguments.pipelines.to, "last id (default: the newest)"), 1,
        kAnyId);
  add_wait(*replay, arguments.pipelines.wait);

  CLI::App* take_over = pipelines->add_subcommand(
      "take-over", "continues at the positions of another group, whose relays do not run");
  take_over->add_option("name", arguments.pipelines.name, "only this pipeline");
  take_over->add_option("--from", arguments.pipelines.from_group, "the other group")
      ->required()
      ->type_name("GROUP");
  take_over->callback([&arguments] { arguments.pipelines.action = "take-over"; });

  // `resume` is a command of its own as well: error messages name it so.
  CLI::App* resume = app.add_subcommand("resume", "the same as `pipelines resume`");
  resume->add_option("name", arguments.pipelines.name, "name of the pipeline")->required();
  resume->add_flag("--accept-loss", arguments.pipelines.accept_loss,
                   "resume although rows after its position are gone");
}

void add_dlq_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* dlq = app.add_subcommand("dlq", "dead letters: list | show | retry | discard | purge");
  dlq->require_subcommand(0, 1);
  CLI::App* list = dlq->add_subcommand("list", "unresolved dead letters");
  list->add_option("pipeline", arguments.dlq.pipeline, "only of this pipeline");
  allow(list->add_option("--limit", arguments.dlq.limit, "how many")->capture_default_str(), 1,
        kMostRows);
  CLI::App* show = dlq->add_subcommand("show", "one dead letter with its payload");
  allow(show->add_option("id", arguments.dlq.id, "its id")->required(), 1, kAnyId);
  CLI::App* retry = dlq->add_subcommand("retry", "sends one again, or all of a pipeline");
  allow(retry->add_option("id", arguments.dlq.id, "its id"), 1, kAnyId);
  retry->add_option("--all", arguments.dlq.pipeline, "all of this pipeline")->type_name("PIPELINE");
  add_wait(*retry, arguments.dlq.wait);
  CLI::App* discard = dlq->add_subcommand("discard", "resolves one without sending it");
  allow(discard->add_option("id", arguments.dlq.id, "its id")->required(), 1, kAnyId);
  CLI::App* purge = dlq->add_subcommand("purge", "deletes resolved dead letters");
  purge
      ->add_option("--older-than", arguments.dlq.older_than,
                   "age, as a PostgreSQL interval that is not negative")
      ->type_name("INTERVAL")
      ->capture_default_str();
  for (CLI::App* command : {list, show, retry, discard, purge}) {
    command->callback([&arguments, command] { arguments.dlq.action = command->get_name(); });
  }
}

void add_file_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* apply = app.add_subcommand(
      "apply", "make the pipelines of the database equal to a file, and print the difference");
  apply->add_option("-f,--file", arguments.apply.file, "the file; - is standard input")
      ->required()
      ->type_name("FILE");
  apply->add_flag("--dry-run", arguments.apply.dry_run, "print the difference and change nothing");
  apply->add_flag("--prune", arguments.apply.prune, "delete pipelines that are not in the file");
  CLI::App* exported =
      app.add_subcommand("export", "print pipelines of the database as a file for apply");
  CLI::Option* const names =
      exported->add_option("name", arguments.exported.names, "the pipelines (default: all)");
  exported
      ->add_flag_callback(
          "--all", [] {}, "all pipelines")
      ->excludes(names);
  exported->add_flag("--mask-secrets", arguments.exported.mask_secrets,
                     "write *** for secrets that are no references; apply refuses it");
}

void add_looking_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* tail = app.add_subcommand("tail", "print a pipeline's messages live");
  tail->add_option("name", arguments.tail.pipeline, "name of the pipeline")->required();
  allow(tail->add_option("--from", arguments.tail.from,
                         "begin at this id instead of at what comes next"),
        0, kAnyId);
  allow(tail->add_option("--count", arguments.tail.count, "end after so many messages (0: never)"),
        0, kAnyId);
  tail->add_flag("--pretty", arguments.tail.pretty, "on a terminal: a table of the rows, live");
  CLI::App* status =
      app.add_subcommand("status", "instances, pipelines, lag and last errors on one screen");
  status->add_option("name", arguments.status_pipeline, "only this pipeline");
  app.add_subcommand("options",
                     "print every option that there is, as a Markdown page; with --json as "
                     "a JSON Schema of configurations");
  CLI::App* quick = app.add_subcommand(
      "quickstart", "a throw-away PostgreSQL with live changes: nothing to configure");
  allow(quick->add_option("--rate", arguments.quickstart.rate, "orders a second")
            ->capture_default_str(),
        1, kMostPerSecond);
  allow(quick->add_option("--duration", arguments.quickstart.duration,
                          "seconds (0: until interrupted)"),
        0, kMostSeconds);
  quick
      ->add_option("--directory", arguments.quickstart.directory,
                   "where the server's data goes (default: a temporary directory)")
      ->type_name("DIR");
}

void add_footers(CLI::App& app) {
  const std::string codes(kExitCodes);
  app.footer(codes);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const bool has_settings = command->get_name() == "run";
    const std::string settings =
        has_settings ? ""
                     : "The settings of `pgtrickle-relay --help`, such as --postgres-url, and "
                       "--json belong here too.\n\n";
    command->footer(settings + codes);
    for (CLI::App* inner : command->get_subcommands([](const CLI::App*) { return true; })) {
      inner->footer(settings + codes);
    }
  }
}

void add_commands(CLI::App& app, Arguments& arguments) {
  add_settings(*app.add_subcommand("run", "run the relay (what it does without a command)"),
               arguments);
  app.add_subcommand("init", "install or upgrade the database side")
      ->add_flag("--dry-run", arguments.dry_run, "print the SQL and change nothing");
  app.add_subcommand(
      "check", "report every problem: configuration, database, brokers, files; changes nothing");
  add_pipeline_commands(app, arguments);
  add_file_commands(app, arguments);
  add_dlq_commands(app, arguments);
  add_looking_commands(app, arguments);
  add_footers(app);
}

std::optional<std::string> environment(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

/// The current URL of the database, from where it was given; nothing if it cannot be read.
std::optional<std::string> read_postgres_url(const config::Catalogue& catalogue,
                                             const std::map<std::string, std::string>& flags,
                                             const std::string& file) {
  config::Node::Object global;
  if (!file.empty()) {
    auto loaded = load_config_file(catalogue, file);
    if (!loaded || !loaded->problems.empty()) return std::nullopt;
    global = std::move(loaded->global);
  }
  const auto merged = config::merge_settings(flags, environment, global);
  if (!merged.problems.empty() || merged.settings.postgres_url.empty()) return std::nullopt;
  return merged.settings.postgres_url;
}

std::string config_file(const Arguments& arguments) {
  if (const auto given = arguments.flags.find("--config"); given != arguments.flags.end()) {
    return given->second;
  }
  return environment("PGTRICKLE_RELAY_CONFIG").value_or("");
}

/// The values of [global]. Pipelines and problems are in the context.
config::Node::Object load_file(Context& context) {
  auto loaded = load_config_file(context.registry.catalogue(), context.settings.config_file);
  if (!loaded) {
    context.problems.push_back(loaded.error());
    return {};
  }
  context.problems = std::move(loaded->problems);
  context.file_pipelines = std::move(loaded->pipelines);
  return std::move(loaded->global);
}

/// Prints all mistakes in settings and file. The command does not run.
int refuse(const Context& context) {
  for (const Error& problem : context.problems) print_error(problem);
  for (const auto& pipeline : context.file_pipelines) {
    for (Error& problem : coordinator::problems_of(pipeline, context.registry)) {
      print_error(problem.in_context(fmt::format("pipeline {}", pipeline.name)));
    }
  }
  return kInvalidConfiguration;
}

/// Loads settings and file pipelines. Returns kOk or an exit code; `check` goes on in spite of
/// problems, to report them all.
int load(Context& context, const Arguments& arguments, bool for_check) {
  context.json = arguments.json;
  const std::string file = context.settings.config_file = config_file(arguments);
  const config::Node::Object global = file.empty() ? config::Node::Object() : load_file(context);
  const auto nothing = [](std::string_view) -> std::optional<std::string> { return std::nullopt; };
  if (const auto flags = config::merge_settings(arguments.flags, nothing, {});
      !flags.problems.empty()) {
    for (const Error& problem : flags.problems) print_error(problem);
    return kUsage;
  }
  auto merged = config::merge_settings(arguments.flags, environment, global);
  context.problems.insert(context.problems.end(), merged.problems.begin(), merged.problems.end());
  if (!context.problems.empty() && !for_check) return refuse(context);
  context.settings = std::move(merged.settings);
  context.settings.config_file = file;
  context.warnings = std::move(merged.warnings);
  return kOk;
}

/// Prints warnings for the commands other than `run`, which logs them, and `check`, which lists
/// them.
void print_warnings(const Context& context) {
  for (const Error& warning : context.warnings) {
    if (warning.code != "secret_in_arguments") continue;
    fmt::print(stderr, "warning: {}\n  remedy: {}\n", warning.message, warning.remedy);
  }
}

/// Lets the relay use a password that is rotated while it runs.
void follow_postgres_url(Context& context, const Arguments& arguments) {
  const auto url = std::make_shared<postgres::CurrentUrl>(
      context.settings.postgres_url,
      [&catalogue = context.registry.catalogue(), flags = arguments.flags,
       file = context.settings.config_file] { return read_postgres_url(catalogue, flags, file); });
  context.settings.read_postgres_url = [url] { return url->get(); };
}

std::string command_of(const CLI::App& app) {
  const auto given = app.get_subcommands();
  return given.empty() ? "run" : given.front()->get_name();
}

int dispatch(const std::string& command, Context& context, Arguments& arguments) {
  if (command != "run" && command != "check") print_warnings(context);
  if (command == "quickstart") return quickstart(context, arguments.quickstart);
  if (command == "options") return print_options(context);
  if (command == "init" && arguments.dry_run) return init_database(context, true);
  if (command == "check" && !context.problems.empty()) return check(context);
  if (context.settings.postgres_url.empty()) {
    print_error({ErrorClass::misconfigured,
                 "missing_setting",
                 "no database is named",
                 "give --postgres-url, PGTRICKLE_RELAY_POSTGRES_URL, or postgres_url in the "
                 "[global] part of --config FILE",
                 {}});
    return kUsage;
  }
  if (command == "run") {
    follow_postgres_url(context, arguments);
    return run_relay(context);
  }
  if (command == "init") return init_database(context, false);
  if (command == "check") return check(context);
  if (command == "pipelines") return pipelines(context, arguments.pipelines);
  if (command == "dlq") return dead_letters(context, arguments.dlq);
  if (command == "tail") return tail(context, arguments.tail);
  if (command == "apply") return apply(context, arguments.apply);
  if (command == "export") return export_pipelines(context, arguments.exported);
  if (command == "resume") {
    arguments.pipelines.action = "resume";
    return pipelines(context, arguments.pipelines);
  }
  return status(context, arguments.status_pipeline);
}

std::string manual(const CommandTree& program, const Registry& registry) {
  ManualPage page{.version = RELAY_VERSION,
                  .description =
                      "It reads outboxes of PostgreSQL and delivers what it reads, in "
                      "order and at least once, and it stores what comes from message "
                      "systems in inboxes. Pipelines are configured in SQL or in the "
                      "file of --config.\n\nA flag wins over its environment "
                      "variable, and that over [global] in the file.",
                  .tables = {{"Options of any pipeline", config::pipeline_fields()},
                             {"Options of pipelines in SQL", config::retention_fields()}},
                  .see_also = {"postgres-stream(1)"}};
  for (const SourceType& source : registry.sources()) {
    page.tables.push_back({fmt::format("Source {}", source.name), source.options});
  }
  for (const SinkType& sink : registry.sinks()) {
    page.tables.push_back({fmt::format("Sink {}", sink.name), sink.options});
  }
  return manual_page(program, page);
}

int run_commands(int argc, char** argv, void (*add_backends)(Registry&)) {
  CLI::App app(std::string(kAbout), "pgtrickle-relay");
  app.fallthrough();
  app.require_subcommand(0, 1);
  Arguments arguments;
  Context context;
  add_backends(context.registry);
  app.add_flag("--json", arguments.json, "print JSON");
  add_settings(app, arguments);
  add_commands(app, arguments);
  CommandLine line(app,
                   {[&] {
                      return arguments.json ? version_json("pgtrickle-relay", context.registry)
                                            : version_text("pgtrickle-relay", context.registry);
                    },
                    [&](const CommandTree& program) { return manual(program, context.registry); }});
  if (const auto code = line.parse(argc, argv)) return *code;
  hide_secrets(argc, argv);
  const std::string command = command_of(app);
  if (const int code = load(context, arguments, command == "check"); code != kOk) return code;
  return dispatch(command, context, arguments);
}

}  // namespace

int run_program(int argc, char** argv, void (*add_backends)(Registry&)) {
  return run_guarded("pgtrickle-relay", [&] { return run_commands(argc, argv, add_backends); });
}

}  // namespace relay::cli
