#include "config/settings.h"

#include <fmt/core.h>

#include <array>

#include "config/literals.h"
#include "config/option_table.h"
#include "config/settings_fields.h"
#include "core/text.h"

namespace relay::config {
namespace {

// A setting, with the member of Settings that it fills.
struct Row {
  Option<Settings> option;
  std::string_view flag;
  std::string_view environment;
};

// `config_file` is last: it is the only one that the file itself cannot hold.
constexpr Row kRows[] = {
    {{{.name = "postgres_url",
       .meaning = "the database that holds outboxes, inboxes and the catalog",
       .required = true,
       .secret = true},
      fills<&Settings::postgres_url>},
     "--postgres-url",
     "PGTRICKLE_RELAY_POSTGRES_URL"},
    {{{.name = "metrics_addr",
       .default_text = "0.0.0.0:9090",
       .meaning = "address and port of metrics, health, API and console",
       .aliases = "metrics_bind"},
      fills<&Settings::metrics_addr>},
     "--metrics-addr",
     "PGTRICKLE_RELAY_METRICS_ADDR"},
    {{{.name = "log_format",
       .type = FieldType::choice,
       .default_text = "text",
       .meaning = "log lines as text or as JSON",
       .choices = "text,json"},
      fills<&Settings::log_format>},
     "--log-format",
     "PGTRICKLE_RELAY_LOG_FORMAT"},
    {{{.name = "log_level",
       .type = FieldType::choice,
       .default_text = "info",
       .meaning = "the lowest level that is logged: debug, info, warn or error",
       .choices = "debug,info,warn,error"},
      fills<&Settings::log_level>},
     "--log-level",
     "PGTRICKLE_RELAY_LOG_LEVEL"},
    {{{.name = "relay_group_id",
       .default_text = "default",
       .meaning = "instances of one group share the pipelines; each group has its own "
                  "positions: a new one starts from the beginning, see pipelines take-over",
       .aliases = "ha_group"},
      fills<&Settings::relay_group_id>},
     "--relay-group-id",
     "PGTRICKLE_RELAY_GROUP_ID"},
    {{{.name = "admin_token",
       .meaning = "bearer token for changes through the API; without it the API only reads",
       .secret = true},
      fills<&Settings::admin_token>},
     "--admin-token",
     "PGTRICKLE_RELAY_ADMIN_TOKEN"},
    {{{.name = "drain_timeout",
       .type = FieldType::duration,
       .default_text = "30s",
       .meaning = "how long a shutdown waits for what is in flight",
       .max = 86400},
      fills<&Settings::drain_timeout>},
     "--drain-timeout",
     "PGTRICKLE_RELAY_DRAIN_TIMEOUT"},
    {{{.name = "discovery_interval",
       .type = FieldType::duration,
       .default_text = "1s",
       .meaning = "how often the catalog and the ownership of pipelines are checked",
       .min = 0.01,
       .max = 3600},
      fills<&Settings::discovery_interval>},
     "--discovery-interval",
     "PGTRICKLE_RELAY_DISCOVERY_INTERVAL"},
    {{{.name = "lease_timeout",
       .type = FieldType::duration,
       .default_text = "5s",
       .meaning = "an owner whose heartbeat is older than this is replaced",
       .min = 0.1,
       .max = 3600},
      fills<&Settings::lease_timeout>},
     "--lease-timeout",
     "PGTRICKLE_RELAY_LEASE_TIMEOUT"},
    {{{.name = "stalled_after",
       .type = FieldType::duration,
       .default_text = "10m",
       .meaning = "a consumer that stands still for so long, with rows to read, raises the alert "
                  "consumer_stalled",
       .min = 1,
       .max = 86400},
      fills<&Settings::stalled_after>},
     "--stalled-after",
     "PGTRICKLE_RELAY_STALLED_AFTER"},
    {{{.name = "ha_mode",
       .type = FieldType::choice,
       .default_text = "shared",
       .meaning = "shared: instances of a group divide the pipelines among them; leader: one "
                  "holds all, the others stand by",
       .choices = "shared,leader"},
      fills<&Settings::ha_mode>},
     "--ha-mode",
     "PGTRICKLE_RELAY_HA_MODE"},
    {{{.name = "pool_size",
       .type = FieldType::integer,
       .default_text = "8",
       .meaning = "connections to the database that pipelines share",
       .min = 1,
       .max = 1000},
      fills<&Settings::pool_size>},
     "--pool-size",
     "PGTRICKLE_RELAY_POOL_SIZE"},
    {{{.name = "slot_wal_limit",
       .type = FieldType::bytes,
       .default_text = "1GiB",
       .meaning = "a logical replication slot of this database that keeps more WAL than this "
                  "degrades the health of the relay, and check warns of it",
       .min = 1},
      fills<&Settings::slots, &SlotLimits::active>},
     "--slot-wal-limit",
     "PGTRICKLE_RELAY_SLOT_WAL_LIMIT"},
    {{{.name = "idle_slot_wal_limit",
       .type = FieldType::bytes,
       .default_text = "256MiB",
       .meaning = "the same where no subscriber is connected to the slot",
       .min = 1},
      fills<&Settings::slots, &SlotLimits::idle>},
     "--idle-slot-wal-limit",
     "PGTRICKLE_RELAY_IDLE_SLOT_WAL_LIMIT"},
    {{{.name = "allow_secret",
       .type = FieldType::list,
       .meaning = "references that pipelines in SQL may use: env:NATS_*, "
                  "file:/etc/relay/secrets/*; may be given several times; default none"},
      fills<&Settings::access, &HostAccess::secrets>},
     "--allow-secret",
     "PGTRICKLE_RELAY_ALLOW_SECRET"},
    {{{.name = "allow_file",
       .type = FieldType::list,
       .meaning = "files that pipelines in SQL may read and write as source and sink: "
                  "/var/log/relay/*; may be given several times; default none"},
      fills<&Settings::access, &HostAccess::files>},
     "--allow-file",
     "PGTRICKLE_RELAY_ALLOW_FILE"},
    {{{.name = "config_file",
       .meaning = "TOML file with [global] settings and [[pipeline]] entries"},
      fills<&Settings::config_file>},
     "--config",
     "PGTRICKLE_RELAY_CONFIG"},
};

constexpr std::size_t kCount = std::size(kRows);

constexpr std::array kSettings = [] {
  std::array<Setting, kCount> settings{};
  for (std::size_t i = 0; i < kCount; ++i) {
    settings[i] = {kRows[i].option.field, kRows[i].flag, kRows[i].environment};
  }
  return settings;
}();

constexpr std::array kOptions = [] {
  std::array<Option<Settings>, kCount> options{};
  for (std::size_t i = 0; i < kCount; ++i) options[i] = kRows[i].option;
  return options;
}();

constexpr std::array kFields = [] {
  auto fields = fields_of(kOptions);
  for (Field& field : fields) field.required = false;  // some commands need no database
  return fields;
}();

using Flags = std::map<std::string, std::string>;
using Environment = std::function<std::optional<std::string>(std::string_view)>;

// The elements of a list are separated by line ends or commas.
Node list_of(std::string_view text, const std::string& place) {
  Node::Array list;
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of(",\n"), text.size());
    if (const auto element = trimmed(text.substr(0, end)); !element.empty()) {
      list.emplace_back(std::string(element), place);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {std::move(list), place};
}

Node outside(const Setting& setting, std::string text, std::string_view place) {
  if (setting.field.type == FieldType::list) return list_of(text, std::string(place));
  Node node(std::move(text), std::string(place));
  node.set_origin(Node::Origin::outside);
  return node;
}

Result<std::optional<Node>> from_secret_file(const Setting& setting, const std::string& path,
                                             const std::string& place) {
  auto content = read_secret_file(path);
  if (!content) {
    return fail(problem(place, content.error().code,
                        fmt::format("{}: {}", path, content.error().message),
                        content.error().remedy));
  }
  return outside(setting, std::move(*content), place);
}

// An empty environment variable is one that is not set.
Result<std::optional<Node>> from_outside(const Setting& setting, const Flags& flags,
                                         const Environment& env) {
  if (const auto flag = flags.find(std::string(setting.flag)); flag != flags.end()) {
    return outside(setting, flag->second, setting.flag);
  }
  if (setting.field.secret) {
    const std::string name = file_flag(setting);
    if (const auto flag = flags.find(name); flag != flags.end()) {
      return from_secret_file(setting, flag->second, name);
    }
  }
  if (auto value = env(setting.environment); value && !value->empty()) {
    return outside(setting, std::move(*value), setting.environment);
  }
  if (setting.field.secret) {
    const std::string name = file_variable(setting);
    if (const auto path = env(name); path && !path->empty()) {
      return from_secret_file(setting, *path, name);
    }
  }
  return std::optional<Node>();
}

Error shows_in_ps(const Setting& setting) {
  return problem(setting.flag, "secret_in_arguments",
                 "other users of this machine see it in the list of processes",
                 fmt::format("Use {} FILE, or the environment variable {}.", file_flag(setting),
                             setting.environment));
}

}  // namespace

std::span<const Setting> settings_table() {
  return kSettings;
}

FieldTable file_settings_fields() {
  return FieldTable(kFields).first(kFields.size() - 1);
}

std::string file_flag(const Setting& setting) {
  return fmt::format("{}-file", setting.flag);
}

std::string file_variable(const Setting& setting) {
  return fmt::format("{}_FILE", setting.environment);
}

CheckedSettings merge_settings(const Flags& flags, const Environment& env,
                               const Node::Object& file) {
  Checked merged = check(file, file_settings_fields(), "[global]");
  merged.values.bind(kFields);
  CheckedSettings result;
  result.problems = std::move(merged.problems);
  for (const Setting& setting : kSettings) {
    const auto given = from_outside(setting, flags, env);
    if (!given) {
      result.problems.push_back(given.error());
      continue;
    }
    if (!*given) continue;
    const FieldTable one(&setting.field, 1);
    const Node& node = **given;
    Checked checked = check({{std::string(setting.field.name), node}}, one, node.place());
    if (checked.problems.empty()) {
      merged.values.set(setting.field, node);
      if (node.place() == setting.flag && !secret_parts(setting.field, node).empty()) {
        result.warnings.push_back(shows_in_ps(setting));
      }
    } else {
      std::move(checked.problems.begin(), checked.problems.end(),
                std::back_inserter(result.problems));
    }
  }
  remember_secrets(merged.values, kFields);
  for (Error& literal : warn_of_literals(merged.values, kFields, Written::in_file)) {
    result.warnings.push_back(std::move(literal));
  }
  if (auto done = fill(result.settings, kOptions, merged.values); !done) {
    result.problems.push_back(done.error());
  }
  if (const auto good = check_patterns(result.settings.access); !good) {
    result.problems.push_back(good.error());
  }
  return result;
}

}  // namespace relay::config
