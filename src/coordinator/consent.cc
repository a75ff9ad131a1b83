#include "coordinator/consent.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>

#include "core/text.h"

namespace relay::coordinator {

namespace {

using config::Field;
using config::HostUse;

/// Properties of librdkafka that name a file, a library or a command of the host, or take its
/// identity: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
constexpr std::array<std::string_view, 9> kHostProperties = {
    "*.location",         "*.path",    "*.paths", "*.file", "*.cmd", "*.keytab", "*.kerberos.*",
    "sasl.oauthbearer.*", "*.engine.*"};

Error not_allowed(const config::Values& values, const Field& field, const std::string& path) {
  const bool secret = field.host == HostUse::secret_file;
  const std::string normal = config::normal_path(path);
  const std::string pattern = (secret ? "file:" : "") + (normal.empty() ? path : normal);
  const std::string_view name = secret ? "allow_secret" : "allow_file";
  const std::string_view flag = secret ? "--allow-secret" : "--allow-file";
  if (normal.empty()) {
    return config::problem(
        values.place(field.name), "file_not_allowed",
        fmt::format("{}: for a pipeline in SQL the path must begin with /", field.name), {});
  }
  return config::problem(
      values.place(field.name), "file_not_allowed",
      fmt::format("{} is not allowed: the operator of the relay decides which files of its host "
                  "pipelines in SQL may use",
                  field.name),
      fmt::format("Start the relay with {0} '{1}' (or a pattern such as '{2}*'), or set {3} = "
                  "[\"{1}\"] in [global].",
                  flag, pattern, pattern.substr(0, pattern.rfind('/') + 1), name));
}

void check_properties(const config::Values& values, const Field& field,
                      std::vector<Error>& problems) {
  std::set<std::string_view> names;
  for (const auto& [name, value] : *values.given(field.name)->object()) names.insert(name);
  for (const std::string_view name : names) {
    const std::string plain = lower_case(name);
    const bool host = std::any_of(
        kHostProperties.begin(), kHostProperties.end(),
        [&](std::string_view pattern) { return config::matches_pattern(pattern, plain); });
    if (!host) continue;
    problems.push_back(config::problem(
        values.place(field.name), "property_not_allowed",
        fmt::format("{}.{} is not allowed in SQL: it reaches the relay's host", field.name, name),
        "Configure this pipeline in a file of the relay's host."));
  }
}

}  // namespace

std::vector<Error> problems_of_consent(const config::PipelineConfig& config,
                                       const config::Values& values, config::FieldTable table) {
  std::vector<Error> problems;
  if (!config.access) return problems;
  for (const Field& field : table) {
    if (field.host == HostUse::none || !values.given(field.name)) continue;
    if (field.host == HostUse::properties) {
      check_properties(values, field, problems);
      continue;
    }
    const std::string path = values.text(field.name);
    const auto patterns =
        field.host == HostUse::file ? config.access->files : config::secret_files(*config.access);
    if (!path.empty() && !config::allows_path(patterns, path)) {
      problems.push_back(not_allowed(values, field, path));
    }
  }
  return problems;
}

}  // namespace relay::coordinator
