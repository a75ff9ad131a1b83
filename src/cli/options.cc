#include <fmt/core.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/option_schema.h"
#include "config/pipeline_config.h"
#include "connector/registry.h"

namespace relay::cli {

namespace {

using config::Field;
using config::FieldType;

std::string type_of(const Field& field) {
  switch (field.type) {
    case FieldType::choice:
      return fmt::format("one of {}", field.choices);
    case FieldType::list:
      return "list of text";
    case FieldType::map:
      return "object of text";
    case FieldType::start:
      return "text or id";
    default:
      return std::string(config::name_of(field.type));
  }
}

std::string code(std::string_view text) {
  return text.empty() ? std::string() : fmt::format("`{}`", text);
}

/// The permission that a pipeline in SQL needs to use the option.
std::string_view consent(config::HostUse use) {
  switch (use) {
    case config::HostUse::none:
      break;
    case config::HostUse::file:
      return " (in SQL: as --allow-file allows)";
    case config::HostUse::secret_file:
      return " (in SQL: as --allow-secret allows)";
    case config::HostUse::properties:
      return " (in SQL: none that names a file, library or command)";
  }
  return "";
}

void print_field(const Field& field) {
  std::string name = code(field.name);
  if (!field.aliases.empty()) name += fmt::format(" (also {})", code(field.aliases));
  std::string fallback = field.required ? "required" : code(field.default_text);
  fmt::print("| {} | {} | {} | {}{}{} |\n", name, type_of(field), fallback, field.meaning,
             field.secret ? " (secret: give a reference)" : "", consent(field.host));
}

void print_table(std::string_view title, config::FieldTable fields) {
  fmt::print("\n## {}\n\n| option | type | default | meaning |\n|---|---|---|---|\n", title);
  for (const Field& field : fields) print_field(field);
}

void print_settings() {
  fmt::print(
      "\n## Settings\n\nA flag wins over the environment, that over `[global]` in the file.\n\n"
      "| `[global]` | flag | environment | default | meaning |\n|---|---|---|---|---|\n");
  for (const config::Setting& setting : config::settings_table()) {
    std::string name = code(setting.field.name);
    if (!setting.field.aliases.empty()) {
      name += fmt::format(" (also {})", code(setting.field.aliases));
    }
    std::string flag = code(setting.flag);
    std::string variable = code(setting.environment);
    if (setting.field.secret) {
      flag += fmt::format(", {}", code(config::file_flag(setting)));
      variable += fmt::format(", {}", code(config::file_variable(setting)));
    }
    fmt::print("| {} | {} | {} | {} | {}{} |\n", name, flag, variable,
               code(setting.field.default_text), setting.field.meaning,
               setting.field.secret ? " (secret: give a reference, a file or the variable)" : "");
  }
}

}  // namespace

int print_options(const Context& context) {
  if (context.json) {
    fmt::print("{}\n", option_schema(context.registry));
    return kOk;
  }
  fmt::print(
      "# All options\n\nThis page is what `pgtrickle-relay options` prints: the tables by which "
      "the program checks its configuration.\n");
  print_settings();
  print_table("Options of any pipeline", config::pipeline_fields());
  print_table("Options of pipelines in SQL that read an outbox of their database",
              config::retention_fields());
  const auto print_sources = [&](bool own_outboxes) {
    for (const SourceType& source : context.registry.sources()) {
      if (source.own_outboxes.has_value() != own_outboxes) continue;
      print_table(fmt::format("Source `{}`", source.name), source.options);
    }
  };
  print_sources(true);
  for (const SinkType& sink : context.registry.sinks()) {
    print_table(fmt::format("Sink `{}`", sink.name), sink.options);
  }
  print_sources(false);
  return kOk;
}

}  // namespace relay::cli
