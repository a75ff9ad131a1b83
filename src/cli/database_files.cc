#include "cli/database_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/embedded_sql.h"
#include "cli/schema_history.h"
#include "config/convert.h"
#include "schema/installed.h"

namespace relay::cli {

namespace {

using config::AlsoIn;
using config::Field;

/// The folders of `sql/`, in the order in which their files run.
constexpr std::array<std::string_view, 4> kFolders{"before/", "migrations/", "functions/",
                                                   "after/"};
constexpr std::string_view kMigrations = "migrations/";
/// Behind the file that makes the records of what is installed, before anything else.
constexpr std::string_view kVersionCheck = "before/005_version.sql";
constexpr std::string_view kMissingTables = "before/006_missing_tables.sql";
constexpr std::string_view kOptionRows = "functions/106_relay_option_rows.sql";

std::string in_quotes(std::string_view text) {
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
        in_quotes(type), in_quotes(field.name), ++position,
        array_of(config::split_names(field.aliases)), config::name_of(field.type), field.min,
        field.max, array_of(config::split_names(field.choices)), field.required, field.secret,
        in_quotes(field.nested), in_quotes(field.one_of), name_of(field.also_in), field.plain,
        field.no_reference, in_quotes(field.default_text), in_quotes(field.meaning)));
  }
}

void add_types(Rows& rows, std::string_view side, const std::vector<config::EndType>& types) {
  int position = 0;
  for (const config::EndType& type : types) {
    rows.push_back(fmt::format("('{}', {}, {}, {}, {}, {})", side, in_quotes(type.name), ++position,
                               array_of(type.aliases), array_of(type.related), type.reads_outbox));
  }
}

constexpr std::string_view kTypeColumns = "side, name, position, aliases, related, reads_outbox";
constexpr std::string_view kOptionColumns =
    "side, type, name, position, aliases, kind, minimum, maximum, choices, required, secret, "
    "nested, one_of, also_in, plain, no_reference, default_value, meaning";

Rows type_rows(const config::Catalogue& catalogue) {
  Rows types;
  add_types(types, "source", catalogue.sources);
  add_types(types, "sink", catalogue.sinks);
  return types;
}

Rows option_rows(const config::Catalogue& catalogue) {
  Rows options;
  add_options(options, "pipeline", "", config::pipeline_fields());
  add_options(options, "retention", "", config::retention_fields());
  for (const config::EndType& type : catalogue.sources) {
    add_options(options, "source", type.name, type.options);
  }
  for (const config::EndType& type : catalogue.sinks) {
    add_options(options, "sink", type.name, type.options);
  }
  return options;
}

/// The statements that write the catalogue of options.
std::string write_catalogue(const config::Catalogue& catalogue) {
  return fmt::format(
      "-- The types and options that this program knows.\n"
      "delete from pgtrickle.relay_types;\n"
      "delete from pgtrickle.relay_options;\n"
      "insert into pgtrickle.relay_types ({}) values\n  {};\n"
      "insert into pgtrickle.relay_options ({}) values\n  {};\n",
      kTypeColumns, fmt::join(type_rows(catalogue), ",\n  "), kOptionColumns,
      fmt::join(option_rows(catalogue), ",\n  "));
}

/// A query for the number of rows that are not those that this program writes. `key` says which two
/// rows are the same one.
std::string differing_rows(std::string_view table, std::string_view columns, const Rows& rows,
                           std::string_view key) {
  return fmt::format(
      "select count(*) from (select jsonb_populate_record(null::{0}, to_jsonb(v)) as r "
      "from (values {2}) v ({1})) w full join {0} o on {3} where w.r is distinct from o",
      table, columns, fmt::join(rows, ", "), key);
}

/// Its place among the folders.
std::ptrdiff_t folder_of(std::string_view name) {
  return std::ranges::find_if(kFolders,
                              [&](std::string_view folder) { return name.starts_with(folder); }) -
         kFolders.begin();
}

/// 12 of "migrations/0012_name.sql"; 0 of a file that is no migration.
int migration_number(std::string_view name) {
  int number = 0;
  if (!name.starts_with(kMigrations)) return number;
  for (const char c : name.substr(kMigrations.size())) {
    if (c < '0' || c > '9') break;
    number = 10 * number + (c - '0');
  }
  return number;
}

/// The tables that a migration makes, as "schema.name".
std::vector<std::string_view> tables_after(std::string_view text, std::string_view words) {
  std::vector<std::string_view> tables;
  for (std::size_t at = text.find(words); at != text.npos; at = text.find(words, at)) {
    at += words.size();
    tables.push_back(text.substr(at, text.find_first_of(" ,;\n(", at) - at));
  }
  return tables;
}

/// A statement that notes from which migration on all must run again, because a table that it made
/// was dropped by hand.
std::string missing_tables() {
  Rows rows;
  for (const SqlFile& file : embedded_sql()) {
    const int number = migration_number(file.name);
    if (number == 0) continue;
    for (const std::string_view table : tables_after(file.text, "table if not exists ")) {
      const bool dropped_later = std::ranges::any_of(embedded_sql(), [&](const SqlFile& later) {
        const auto dropped = tables_after(later.text, "drop table ");
        return migration_number(later.name) > number && std::ranges::count(dropped, table) > 0;
      });
      if (!dropped_later) rows.push_back(fmt::format("({}, {})", number, in_quotes(table)));
    }
  }
  return fmt::format(
      R"(-- Where a table that a migration made is gone, that one and all later ones run again.
do $$
begin
  perform set_config('pgtrickle.migrate_from', (
    select min(m.number)
    from (values
      {}) t (number, name)
    join pgtrickle_internal.migrations m on m.number = t.number
    where to_regclass(t.name) is null)::text, true);
end $$;
)",
      fmt::join(rows, ",\n      "));
}

/// A statement that runs a migration unless it was applied before, and notes that it was.
std::string once(std::string_view name, std::string_view text) {
  const std::string sum = checksum(text);
  return fmt::format(R"(do $migration$
declare
  applied text;
begin
  select m.checksum into applied from pgtrickle_internal.migrations m where m.number = {0};
  if applied <> {2} then
    raise exception 'migration {0} was applied here with another content than this program knows'
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Use a released version of the program; no released migration changes.';
  elsif applied is null
        or {0} >= nullif(current_setting('pgtrickle.migrate_from', true), '')::int then
    execute $migration_text$
{3}$migration_text$;
    insert into pgtrickle_internal.migrations (number, name, checksum, program)
    values ({0}, {1}, {2}, {4})
    on conflict do nothing;
  end if;
end $migration$;
)",
                     migration_number(name), in_quotes(name.substr(kMigrations.size())),
                     in_quotes(sum), text, in_quotes(RELAY_VERSION));
}

std::string version_check() {
  return fmt::format(R"(-- A newer database side stays as it is.
do $$
declare
  installed constant int := (select max(h.version) from pgtrickle.relay_schema_history h);
begin
  if installed > {0} then
    raise exception 'the database side has version %, and this program knows {0} at most', installed
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Use the program of the version that installed it, or a later one.';
  end if;
end $$;
)",
                     schema::version());
}

}  // namespace

std::vector<DatabaseFile> database_files(const Registry& registry) {
  std::vector<DatabaseFile> files;
  for (const SqlFile& file : embedded_sql()) {
    files.push_back({std::string(file.name), migration_number(file.name) == 0
                                                 ? std::string(file.text)
                                                 : once(file.name, file.text)});
  }
  files.push_back({std::string(kVersionCheck), version_check()});
  files.push_back({std::string(kMissingTables), missing_tables()});
  files.push_back({std::string(kOptionRows), write_catalogue(registry.catalogue())});
  std::ranges::sort(files, {}, [](const DatabaseFile& file) {
    return std::pair(folder_of(file.name), std::string_view(file.name));
  });
  return files;
}

std::vector<CatalogueTable> catalogue_tables(const Registry& registry) {
  constexpr std::string_view kTypes = "pgtrickle.relay_types";
  constexpr std::string_view kOptions = "pgtrickle.relay_options";
  const config::Catalogue& catalogue = registry.catalogue();
  return {{std::string(kTypes), differing_rows(kTypes, kTypeColumns, type_rows(catalogue),
                                               "(w.r).side = o.side and (w.r).name = o.name")},
          {std::string(kOptions),
           differing_rows(kOptions, kOptionColumns, option_rows(catalogue),
                          "(w.r).side = o.side and (w.r).type = o.type and (w.r).name = o.name")}};
}

}  // namespace relay::cli
