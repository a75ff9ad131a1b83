#include "config/settings.h"

#include <fmt/core.h>

#include <array>

#include "config/literals.h"
#include "config/settings_fields.h"
#include "core/text.h"

namespace relay::config {
namespace {

// `config_file` is last: it is the only one that the file itself cannot hold.
constexpr std::array kSettings = {
    Setting{{.name = "postgres_url",
             .meaning = "the database that holds outboxes, inboxes and the catalog",
             .required = true,
             .secret = true},
            "--postgres-url",
            "PGTRICKLE_RELAY_POSTGRES_URL"},
    Setting{{.name = "metrics_addr",
             .default_text = "0.0.0.0:9090",
             .meaning = "address and port of metrics, health, API and console",
             .aliases = "metrics_bind"},
            "--metrics-addr",
            "PGTRICKLE_RELAY_METRICS_ADDR"},
    Setting{{.name = "log_format",
             .type = FieldType::choice,
             .default_text = "text",
             .meaning = "log lines as text or as JSON",
             .choices = "text,json"},
            "--log-format",
            "PGTRICKLE_RELAY_LOG_FORMAT"},
    Setting{{.name = "log_level",
             .type = FieldType::choice,
             .default_text = "info",
             .meaning = "the lowest level that is logged: debug, info, warn or error",
             .choices = "debug,info,warn,error"},
            "--log-level",
            "PGTRICKLE_RELAY_LOG_LEVEL"},
    Setting{{.name = "relay_group_id",
             .default_text = "default",
             .meaning = "instances of one group share the pipelines; each group has its own "
                        "positions: a new one starts from the beginning, see pipelines take-over",
             .aliases = "ha_group"},
            "--relay-group-id",
            "PGTRICKLE_RELAY_GROUP_ID"},
    Setting{{.name = "admin_token",
             .meaning = "bearer token for changes through the API; without it the API only reads",
             .secret = true},
            "--admin-token",
            "PGTRICKLE_RELAY_ADMIN_TOKEN"},
    Setting{{.name = "drain_timeout",
             .type = FieldType::duration,
             .default_text = "30s",
             .meaning = "how long a shutdown waits for what is in flight",
             .max = 86400},
            "--drain-timeout",
            "PGTRICKLE_RELAY_DRAIN_TIMEOUT"},
    Setting{{.name = "discovery_interval",
             .type = FieldType::duration,
             .default_text = "1s",
             .meaning = "how often the catalog and the ownership of pipelines are checked",
             .min = 0.01,
             .max = 3600},
            "--discovery-interval",
            "PGTRICKLE_RELAY_DISCOVERY_INTERVAL"},
    Setting{{.name = "lease_timeout",
             .type = FieldType::duration,
             .default_text = "5s",
             .meaning = "an owner whose heartbeat is older than this is replaced",
             .min = 0.1,
             .max = 3600},
            "--lease-timeout",
            "PGTRICKLE_RELAY_LEASE_TIMEOUT"},
    Setting{{.name = "ha_mode",
             .type = FieldType::choice,
             .default_text = "shared",
             .meaning = "shared: instances of a group divide the pipelines among them; leader: one "
                        "holds all, the others stand by",
             .choices = "shared,leader"},
            "--ha-mode",
            "PGTRICKLE_RELAY_HA_MODE"},
    Setting{{.name = "pool_size",
             .type = FieldType::integer,
             .default_text = "8",
             .meaning = "connections to the database that pipelines share",
             .min = 1,
             .max = 1000},
            "--pool-size",
            "PGTRICKLE_RELAY_POOL_SIZE"},
    Setting{{.name = "allow_secret",
             .type = FieldType::list,
             .meaning = "references that pipelines in SQL may use: env:NATS_*, "
                        "file:/etc/relay/secrets/*; may be given several times; default none"},
            "--allow-secret",
            "PGTRICKLE_RELAY_ALLOW_SECRET"},
    Setting{{.name = "allow_file",
             .type = FieldType::list,
             .meaning = "files that pipelines in SQL may read and write as source and sink: "
                        "/var/log/relay/*; may be given several times; default none"},
            "--allow-file",
            "PGTRICKLE_RELAY_ALLOW_FILE"},
    Setting{{.name = "config_file",
             .meaning = "TOML file with [global] settings and [[pipeline]] entries"},
            "--config",
            "PGTRICKLE_RELAY_CONFIG"},
};

constexpr std::array kFields = [] {
  std::array<Field, kSettings.size()> fields{};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    fields[i] = kSettings[i].field;
    fields[i].required = false;  // some commands need no database
  }
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

Settings from_values(const Values& values) {
  Settings settings;
  settings.postgres_url = values.text("postgres_url");
  settings.metrics_addr = values.text("metrics_addr");
  settings.log_format = values.text("log_format");
  settings.log_level = values.text("log_level");
  settings.relay_group_id = values.text("relay_group_id");
  settings.config_file = values.text("config_file");
  settings.admin_token = values.text("admin_token");
  settings.drain_timeout = values.duration("drain_timeout");
  settings.discovery_interval = values.duration("discovery_interval");
  settings.lease_timeout = values.duration("lease_timeout");
  settings.ha_mode = values.text("ha_mode");
  settings.pool_size = values.integer("pool_size");
  settings.access = {values.list("allow_secret"), values.list("allow_file")};
  return settings;
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
  result.settings = from_values(merged.values);
  if (const auto good = check_patterns(result.settings.access); !good) {
    result.problems.push_back(good.error());
  }
  return result;
}

}  // namespace relay::config
