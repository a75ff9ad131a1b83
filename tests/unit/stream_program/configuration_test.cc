#include "stream_program/configuration.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stream_program/overrides.h"

namespace relay::stream_program {
namespace {

constexpr std::string_view kFile = R"(
stream:
  id: 1
  pg_connection: {host: h, name: d, username: u}
sink: {type: memory}
)";

config::Catalogue catalogue() {
  config::Catalogue known;
  known.sources.push_back({.name = "stream", .aliases = {}, .related = {}, .options = {}});
  known.sinks.push_back({.name = "memory", .aliases = {}, .related = {}, .options = {}});
  known.sinks.push_back({.name = "webhook", .aliases = {"http"}, .related = {}, .options = {}});
  return known;
}

Configuration read(std::string_view text, const Overrides& overrides = {}) {
  static const config::Catalogue known = catalogue();
  return read_configuration(known, text, "f", overrides);
}

std::string first_problem(const Configuration& configuration) {
  return configuration.problems.empty() ? "" : configuration.problems.front().message;
}

TEST(Configuration, DefaultsStandInItsTables) {
  const Configuration found = read(kFile);
  ASSERT_TRUE(found.problems.empty()) << first_problem(found);
  ASSERT_EQ(found.streams.size(), 1u);
  EXPECT_EQ(found.streams[0].database, "host='h' port=5432 dbname='d' user='u'");
  EXPECT_EQ(found.streams[0].pipeline.options.batch_size, 1000);
  EXPECT_EQ(found.settings.metrics_addr, "0.0.0.0:9091");
}

TEST(Configuration, AConnectionStringIsQuoted) {
  const Configuration found =
      read(kFile, {{"POSTGRES_STREAM__STREAM__PG_CONNECTION__PASSWORD", R"(it's a \ and ${X})"}});
  ASSERT_TRUE(found.problems.empty()) << first_problem(found);
  EXPECT_TRUE(found.streams[0].database.ends_with(R"( password='it\'s a \\ and ${X}')"))
      << found.streams[0].database;
}

TEST(Configuration, TlsChecksTheServer) {
  const auto database = [](const char* enabled, const char* certs) {
    const Configuration found =
        read(kFile, {{"POSTGRES_STREAM__STREAM__PG_CONNECTION__TLS__ENABLED", enabled},
                     {"POSTGRES_STREAM__STREAM__PG_CONNECTION__TLS__TRUSTED_ROOT_CERTS", certs}});
    return found.streams.front().database;
  };
  EXPECT_TRUE(database("false", "").ends_with(" sslmode=disable"));
  EXPECT_TRUE(database("true", "/ca.pem").ends_with(" sslmode=verify-full sslrootcert='/ca.pem'"));
  EXPECT_NE(database("true", "").find("verify-full sslrootcert='/etc"), std::string::npos);
  EXPECT_NE(database("true", "-----BEGIN CERTIFICATE-----\n").find("'/proc/self/fd/"),
            std::string::npos);
}

TEST(Configuration, HeadersOfAnHttpSinkAreThoseOfRequests) {
  const Configuration found = read(
      "stream: {id: 1, pg_connection: {host: h, name: d, username: u}}\n"
      "sink: {type: http, headers: {Authorization: Bearer x}}");
  ASSERT_TRUE(found.problems.empty()) << first_problem(found);
  const config::PipelineConfig& pipeline = found.streams[0].pipeline;
  EXPECT_TRUE(pipeline.headers.empty());
  EXPECT_NE(config::find_member(pipeline.sink, "request_headers"), nullptr);
}

TEST(Configuration, OptionsOfPipelinesStandInTheStream) {
  const Configuration found = read(
      "stream: {id: 1, pg_connection: {host: h, name: d, username: u}, on_reject: stop, "
      "batch: {max_size: 7}}\nsink: {type: memory, key_template: '{{ a }}'}");
  ASSERT_TRUE(found.problems.empty()) << first_problem(found);
  EXPECT_EQ(found.streams[0].pipeline.options.on_reject, "stop");
  EXPECT_EQ(found.streams[0].pipeline.options.batch_size, 7);
  EXPECT_EQ(found.streams[0].pipeline.options.key_template, "{{ a }}");
}

TEST(Configuration, AnOverrideReachesListsAndMakesWhatIsMissing) {
  const Configuration found =
      read("streams: [{id: 1, pg_connection: {host: h, name: d, username: u}}]\n",
           {{"POSTGRES_STREAM__STREAMS__0__ID", "9"}, {"POSTGRES_STREAM__SINK__TYPE", "memory"}});
  ASSERT_TRUE(found.problems.empty()) << first_problem(found);
  EXPECT_EQ(found.streams[0].id, 9);
  EXPECT_EQ(found.streams[0].pipeline.sink_type, "memory");
}

TEST(Configuration, AnOverrideThatLeadsNowhereIsAProblem) {
  for (const char* name :
       {"POSTGRES_STREAM__", "POSTGRES_STREAM__STREAM__ID__X", "POSTGRES_STREAM__STREAMS__1__ID"}) {
    const Configuration found = read(kFile, {{name, "1"}});
    EXPECT_TRUE(std::ranges::any_of(
        found.problems, [&](const Error& problem) { return problem.message.starts_with(name); }))
        << name << ": " << first_problem(found);
  }
}

TEST(Configuration, AnOverrideMayReplaceAnUnsetReference) {
  const Configuration found = read(
      "stream: {id: 1, pg_connection: {host: '${NOT_SET_HERE}', name: d, username: u}}\n"
      "sink: {type: memory}",
      {{"POSTGRES_STREAM__STREAM__PG_CONNECTION__HOST", "h"}});
  EXPECT_TRUE(found.problems.empty()) << first_problem(found);
}

}  // namespace
}  // namespace relay::stream_program
