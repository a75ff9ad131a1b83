#include "cli/version.h"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "cli/commit.h"
#include "core/text.h"

namespace relay::cli {

namespace {

std::string libpq_version() {
  const int number = PQlibVersion();
  return fmt::format("{}.{}", number / 10000, number % 10000);
}

std::vector<Library> libraries_of(const Registry& registry) {
  std::vector<Library> libraries(registry.libraries().begin(), registry.libraries().end());
  libraries.push_back({"libpq", libpq_version()});
  libraries.push_back({"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)});
  std::ranges::sort(libraries, {}, &Library::name);
  return libraries;
}

template <class Types>
std::vector<std::string> names_of(const Types& types) {
  std::vector<std::string> names;
  for (const auto& type : types) names.push_back(type.name);
  return names;
}

std::string json_list(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ",") + json_string(name);
  return '[' + out + ']';
}

std::vector<std::string> left_out(const Registry& registry) {
  return {registry.left_out().begin(), registry.left_out().end()};
}

}  // namespace

std::string version_text(std::string_view program, const Registry& registry) {
  std::string out = fmt::format(
      "{} {}\ncommit:     {}\nsinks:      {}\nsources:    {}\n", program, RELAY_VERSION, commit(),
      fmt::join(names_of(registry.sinks()), ", "), fmt::join(names_of(registry.sources()), ", "));
  if (const auto missing = left_out(registry); !missing.empty()) {
    out += fmt::format("left out:   {}\n", fmt::join(missing, ", "));
  }
  std::vector<std::string> libraries;
  for (const auto& [name, version] : libraries_of(registry)) {
    libraries.push_back(fmt::format("{} {}", name, version));
  }
  return out + fmt::format("libraries:  {}", fmt::join(libraries, ", "));
}

std::string version_json(std::string_view program, const Registry& registry) {
  std::string libraries;
  for (const auto& [name, version] : libraries_of(registry)) {
    libraries += fmt::format("{}{}:{}", libraries.empty() ? "" : ",", json_string(name),
                             json_string(version));
  }
  return fmt::format(
      R"({{"program":{},"version":{},"commit":{},"sinks":{},"sources":{},"left_out":{},)"
      R"("libraries":{{{}}}}})",
      json_string(program), json_string(RELAY_VERSION), json_string(commit()),
      json_list(names_of(registry.sinks())), json_list(names_of(registry.sources())),
      json_list(left_out(registry)), libraries);
}

}  // namespace relay::cli
