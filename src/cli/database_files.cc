#include "cli/database_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "cli/embedded_sql.h"
#include "config/convert.h"

namespace relay::cli {

namespace {

using config::AlsoIn;
using config::Field;

/// Behind the file that makes the tables.
constexpr std::string_view kOptionRows = "106_relay_option_rows.sql";

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += c;
  }
  return out + "'";
}

template <class Names>
std::string array_of(const Names& names) {
  return fmt::format("'{{{}}}'", fmt::join(names, ","));
}

std::string_view name_of(AlsoIn end) {
  switch (end) {
    case AlsoIn::none:
      break;
    case AlsoIn::sink:
      return "sink";
    case AlsoIn::outbox_source:
      return "outbox_source";
  }
  return "";
}

/// Rows of a VALUES list, each in its parentheses.
using Rows = std::vector<std::string>;

void add_options(Rows& rows, std::string_view side, std::string_view type,
                 config::FieldTable fields) {
  int position = 0;
  for (const Field& field : fields) {
    rows.push_back(fmt::format(
        "('{}', {}, {}, {}, {}, '{}', {:f}, {:f}, {}, {}, {}, {}, {}, '{}', {}, {}, {}, {})", side,
        quoted(type), quoted(field.name), ++position, array_of(config::split_names(field.aliases)),
        config::name_of(field.type), field.min, field.max,
        array_of(config::split_names(field.choices)), field.required, field.secret,
        quoted(field.nested), quoted(field.one_of), name_of(field.also_in), field.plain,
        field.no_reference, quoted(field.default_text), quoted(field.meaning)));
  }
}

void add_types(Rows& rows, std::string_view side, const std::vector<config::EndType>& types) {
  int position = 0;
  for (const config::EndType& type : types) {
    rows.push_back(fmt::format("('{}', {}, {}, {}, {}, {})", side, quoted(type.name), ++position,
                               array_of(type.aliases), array_of(type.related), type.reads_outbox));
  }
}

/// The statements that write the catalogue of options.
std::string option_rows(const Registry& registry) {
  const config::Catalogue& catalogue = registry.catalogue();
  Rows types;
  add_types(types, "source", catalogue.sources);
  add_types(types, "sink", catalogue.sinks);
  Rows options;
  add_options(options, "pipeline", "", config::pipeline_fields());
  add_options(options, "retention", "", config::retention_fields());
  for (const config::EndType& type : catalogue.sources) {
    add_options(options, "source", type.name, type.options);
  }
  for (const config::EndType& type : catalogue.sinks) {
    add_options(options, "sink", type.name, type.options);
  }
  return fmt::format(
      "-- The types and options that this program knows.\n"
      "delete from pgtrickle.relay_types;\n"
      "delete from pgtrickle.relay_options;\n"
      "insert into pgtrickle.relay_types (side, name, position, aliases, related, reads_outbox) "
      "values\n  {};\n"
      "insert into pgtrickle.relay_options (side, type, name, position, aliases, kind, minimum, "
      "maximum, choices, required, secret, nested, one_of, also_in, plain, no_reference, "
      "default_value, meaning) values\n  {};\n",
      fmt::join(types, ",\n  "), fmt::join(options, ",\n  "));
}

}  // namespace

std::vector<DatabaseFile> database_files(const Registry& registry) {
  std::vector<DatabaseFile> files;
  for (const SqlFile& file : embedded_sql()) {
    files.push_back({std::string(file.name), std::string(file.text)});
  }
  files.push_back({std::string(kOptionRows), option_rows(registry)});
  std::ranges::sort(files, {}, &DatabaseFile::name);
  return files;
}

}  // namespace relay::cli
