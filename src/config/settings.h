#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"
#include "core/error.h"

namespace relay::config {

/// How much WAL a logical replication slot of the relay's database may keep, in bytes.
struct SlotLimits {
  std::int64_t active = 0;  ///< slot_wal_limit
  std::int64_t idle = 0;    ///< idle_slot_wal_limit: no subscriber is connected to it
};

/// The settings of the whole program: by flag, environment, file ([global]) or default, in this
/// order of precedence. An unset flag overrides nothing.
struct Settings {
  std::string postgres_url;
  /// `postgres_url` with the credentials that it has now. May be null. Any thread.
  std::function<std::string()> read_postgres_url;
  std::string metrics_addr;
  std::string log_format;
  std::string log_level;
  std::string relay_group_id;
  std::string config_file;
  std::string admin_token;
  std::chrono::milliseconds drain_timeout{};
  std::chrono::milliseconds discovery_interval{};
  std::chrono::milliseconds lease_timeout{};
  std::chrono::milliseconds stalled_after{};
  std::string ha_mode;  ///< shared, leader
  std::int64_t pool_size = 0;
  SlotLimits slots;
  HostAccess access;  ///< allow_secret, allow_file
};

/// One row a setting: the name in TOML, its flag, its environment variable, default and meaning.
struct Setting {
  Field field;                   ///< name as in [global]; aliases such as metrics_bind, ha_group
  std::string_view flag;         ///< "--postgres-url"
  std::string_view environment;  ///< "PGTRICKLE_RELAY_POSTGRES_URL"
};
std::span<const Setting> settings_table();

/// The flag and the variable that name a file with the value of a secret setting:
/// "--admin-token-file", "PGTRICKLE_RELAY_ADMIN_TOKEN_FILE".
std::string file_flag(const Setting& setting);
std::string file_variable(const Setting& setting);

/// Merges the layers. `flags`: Setting::flag or file_flag -> text, only those that were given; of a
/// list, one element a line. An empty environment variable counts as not set. Secrets are
/// remembered. `file`: [global]. A missing database is no problem here,
/// because some commands need none.
struct CheckedSettings {
  Settings settings;
  std::vector<Error> problems;
  std::vector<Error> warnings;  ///< secrets that were given where other users may see them
};
CheckedSettings merge_settings(
    const std::map<std::string, std::string>& flags,
    const std::function<std::optional<std::string>(std::string_view)>& env,
    const Node::Object& file);

}  // namespace relay::config
