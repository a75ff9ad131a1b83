#include "config/settings.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <set>

#include "problems.h"

namespace relay::config {
namespace {

using namespace std::chrono_literals;
using Texts = std::map<std::string, std::string>;

CheckedSettings merged(const Texts& flags, const Texts& env, std::string_view toml = {}) {
  const auto file = parse_toml(toml, "relay.toml");
  EXPECT_TRUE(file);
  const auto look_up = [&](std::string_view name) -> std::optional<std::string> {
    const auto found = env.find(std::string(name));
    return found == env.end() ? std::nullopt : std::optional(found->second);
  };
  return merge_settings(flags, look_up, *file->object());
}

TEST(Settings, DefaultsAreThoseOfTheDocumentation) {
  const auto [settings, problems, warnings] = merged({}, {});
  EXPECT_EQ(told(problems), Told{});
  EXPECT_EQ(settings.postgres_url, "");
  EXPECT_EQ(settings.metrics_addr, "0.0.0.0:9090");
  EXPECT_EQ(settings.log_format, "text");
  EXPECT_EQ(settings.log_level, "info");
  EXPECT_EQ(settings.relay_group_id, "default");
  EXPECT_EQ(settings.drain_timeout, 30s);
  EXPECT_EQ(settings.discovery_interval, 1s);
  EXPECT_EQ(settings.lease_timeout, 5s);
  EXPECT_EQ(settings.stalled_after, 10min);
  EXPECT_EQ(settings.ha_mode, "shared");
  EXPECT_EQ(settings.pool_size, 8);
}

TEST(Settings, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const char* file = "log_level = \"debug\"\n";
  EXPECT_EQ(merged({}, {}, file).settings.log_level, "debug");
  EXPECT_EQ(merged({}, {{"PGTRICKLE_RELAY_LOG_LEVEL", "warn"}}, file).settings.log_level, "warn");
  EXPECT_EQ(merged({{"--log-level", "error"}}, {{"PGTRICKLE_RELAY_LOG_LEVEL", "warn"}}, file)
                .settings.log_level,
            "error");
  EXPECT_EQ(merged({}, {{"PGTRICKLE_RELAY_LOG_LEVEL", ""}}, file).settings.log_level, "debug");
}

TEST(Settings, EverySettingCanBeGivenInEveryLayer) {
  for (const Setting& setting : settings_table()) {
    std::string text =
        setting.field.choices.empty()
            ? "7"
            : std::string(setting.field.choices.substr(0, setting.field.choices.find(',')));
    if (setting.field.name == "allow_secret") text = "env:A_*";
    if (setting.field.name == "allow_file") text = "/var/log/*";
    EXPECT_EQ(told(merged({{std::string(setting.flag), text}}, {}).problems), Told{});
    EXPECT_EQ(told(merged({}, {{std::string(setting.environment), text}}).problems), Told{});
    if (setting.field.name == "config_file") continue;
    const bool number = setting.field.type == FieldType::integer;
    const std::string toml = fmt::format("{} = {}{}{}\n", setting.field.name, number ? "" : "\"",
                                         text, number ? "" : "\"");
    EXPECT_EQ(told(merged({}, {}, toml).problems), Told{});
  }
}

TEST(Settings, AListIsGivenByLinesOfFlagsAndByCommasInTheEnvironment) {
  const std::vector<std::string> both{"env:A", "file:/b/*"};
  EXPECT_EQ(merged({{"--allow-secret", "env:A\nfile:/b/*"}}, {}).settings.access.secrets, both);
  EXPECT_EQ(
      merged({}, {{"PGTRICKLE_RELAY_ALLOW_SECRET", "env:A, file:/b/*"}}).settings.access.secrets,
      both);
  EXPECT_EQ(merged({}, {}, "allow_secret = [\"env:A\", \"file:/b/*\"]\n").settings.access.secrets,
            both);
  EXPECT_EQ(merged({}, {}).settings.access.secrets.size(), 0u);
}

TEST(Settings, ASecretIsWarnedOfWhereOthersSeeIt) {
  const auto codes = [](const CheckedSettings& checked) {
    std::vector<std::string> found;
    for (const Error& warning : checked.warnings) found.push_back(warning.code);
    return found;
  };
  using Codes = std::vector<std::string>;
  const std::string url = "postgres://u:secret@h/db";
  EXPECT_EQ(codes(merged({{"--admin-token", "t"}}, {})), Codes{"secret_in_arguments"});
  EXPECT_EQ(codes(merged({{"--postgres-url", url}}, {})), Codes{"secret_in_arguments"});
  EXPECT_EQ(codes(merged({{"--postgres-url", "postgres://u@h/db"}}, {})), Codes{});
  EXPECT_EQ(codes(merged({}, {{"PGTRICKLE_RELAY_POSTGRES_URL", url}})), Codes{});
  EXPECT_EQ(codes(merged({}, {}, "admin_token = \"t\"\n")), Codes{"literal_secret"});
}

TEST(Settings, NamesAreUnique) {
  std::set<std::string_view> names;
  for (const Setting& setting : settings_table()) {
    EXPECT_TRUE(names.insert(setting.field.name).second);
    EXPECT_TRUE(names.insert(setting.flag).second);
    EXPECT_TRUE(names.insert(setting.environment).second);
  }
}

TEST(Settings, BothSpellingsInTheFileWork) {
  const auto settings =
      merged({}, {}, "metrics_bind = \"127.0.0.1:1\"\nha_group = \"g\"\n").settings;
  EXPECT_EQ(settings.metrics_addr, "127.0.0.1:1");
  EXPECT_EQ(settings.relay_group_id, "g");
  EXPECT_EQ(told(merged({}, {}, "ha_group = \"a\"\nrelay_group_id = \"b\"\n").problems),
            Told{"conflict | relay.toml:2:18: \"relay_group_id\" says something else than "
                 "\"ha_group\" (relay.toml:1:12); both mean the same | Give one of them."});
}

TEST(Settings, NumbersAndDurationsOfFlagsAreRead) {
  const auto [settings, problems, warnings] = merged(
      {{"--pool-size", "3"}, {"--drain-timeout", "1m"}, {"--discovery-interval", "250ms"}}, {});
  EXPECT_EQ(told(problems), Told{});
  EXPECT_EQ(settings.pool_size, 3);
  EXPECT_EQ(settings.drain_timeout, 60s);
  EXPECT_EQ(settings.discovery_interval, 250ms);
}

TEST(Settings, AllProblemsNameTheirPlace) {
  EXPECT_EQ(
      told(merged({{"--log-format", "xml"}}, {{"PGTRICKLE_RELAY_HA_MODE", "leeder"}},
                  "pool_size = \"x\"\nlog_levle = \"info\"\n")
               .problems),
      (Told{"wrong_type | relay.toml:1:13: pool_size is \"x\"; it must be a whole number from 1 to "
            "1000 | ",
            "unknown_option | relay.toml:2:13: there is no option \"log_levle\" | Did you mean "
            "\"log_level\"? Known here: postgres_url, metrics_addr, log_format, log_level, "
            "relay_group_id, admin_token, drain_timeout, discovery_interval, lease_timeout, "
            "stalled_after, ha_mode, pool_size, slot_wal_limit, idle_slot_wal_limit, "
            "allow_secret, allow_file.",
            "not_allowed | --log-format: log_format is \"xml\"; it must be one of text, json | ",
            "not_allowed | PGTRICKLE_RELAY_HA_MODE: ha_mode is \"leeder\"; it must be one of "
            "shared, leader | Did you mean \"leader\"?"}));
}

TEST(Settings, TheFileCannotNameAnotherFile) {
  EXPECT_EQ(merged({}, {}, "config_file = \"x\"\n").problems.size(), 1u);
  EXPECT_EQ(merged({{"--config", "x"}}, {}).settings.config_file, "x");
}

}  // namespace
}  // namespace relay::config
