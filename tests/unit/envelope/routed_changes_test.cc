#include "envelope/routed_changes.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "envelope/batches.h"
#include "envelope/rows.h"

namespace relay::envelope {
namespace {

using Lines = std::vector<std::string>;

/// Each change of a delta with the number and the subject of its route.
Lines routed(EncoderOptions options, TestRows rows, std::size_t deleted) {
  const Plan plan = *Plan::make(std::move(options));
  JsonReader reader;
  Refusals refusals;
  RouteRenderer renderer(plan, reader, refusals);
  ChangePairing pairing;
  RoutedChanges changes(plan, reader, refusals, renderer);
  Batch batch;
  batch.delta(1, {}, {});
  Output output(batch.take());
  output.begin(0);
  refusals.start("orders");
  renderer.start(output);
  renderer.begin(output.record());
  changes.set(*rows, pairing.of_delta(*rows, deleted, false, output.shape().key_columns));
  Lines lines;
  for (const Change& change : changes.changes()) {
    const Route& route = changes.route(change);
    lines.push_back(described(change) + " to " + std::to_string(change.route) + " " +
                    (route.refused ? route.refused->code : std::string(route.subject)));
  }
  return lines;
}

EncoderOptions by_region(std::optional<std::string> filter = {}) {
  EncoderOptions options;
  options.subject_template = "{{ region }}";
  options.filter = std::move(filter);
  return options;
}

TEST(RoutedChanges, PutsInsertsBehindDeletesAndUpdates) {
  EXPECT_EQ(routed({}, {R"({"id":1})", R"({"id":2})", R"({"id":3})", R"({"id":2})"}, 2),
            (Lines{"delete 0 - to 0 orders", "update 1 3 to 0 orders", "insert - 2 to 0 orders"}));
}

TEST(RoutedChanges, SplitsAnUpdateWhoseRowsGoToDifferentPlaces) {
  EXPECT_EQ(routed(by_region(),
                   {R"({"id":1,"region":"a"})", R"({"id":2,"region":"c"})",
                    R"({"id":3,"region":"d"})", R"({"id":1,"region":"b"})"},
                   2),
            (Lines{"delete 0 - moved to 0 a", "delete 1 - to 2 c", "insert - 2 to 3 d",
                   "insert - 3 moved to 1 b"}));
}

TEST(RoutedChanges, GivesChangesOfOneRouteOneNumber) {
  EXPECT_EQ(
      routed(by_region(),
             {R"({"id":1,"region":"a"})", R"({"id":2,"region":"b"})", R"({"id":3,"region":"a"})"},
             0),
      (Lines{"insert - 0 to 0 a", "insert - 1 to 1 b", "insert - 2 to 0 a"}));
}

TEST(RoutedChanges, RefusesAnUpdateOfWhichOneRowCannotBeRouted) {
  EXPECT_EQ(routed(by_region(), {R"({"id":1})", R"({"id":1,"region":"b"})"}, 1),
            (Lines{"update 0 1 to 0 missing_column"}));
  EXPECT_EQ(routed(by_region(), {R"({"id":1,"region":"b"})", R"({"id":1})"}, 1),
            (Lines{"update 0 1 to 0 missing_column"}));
}

TEST(RoutedChanges, AppliesTheFilterBeforeItRoutes) {
  EXPECT_EQ(
      routed(by_region("region <> 'a'"),
             {R"({"id":1,"region":"a"})", R"({"id":2,"region":"a"})", R"({"id":1,"region":"b"})"},
             2),
      (Lines{"insert - 2 to 0 b"}));
  EXPECT_EQ(routed(by_region("region <> 'a'"), {R"({"id":1})", R"({"id":1,"region":"b"})"}, 1),
            (Lines{"update 0 1 to 0 filter"}));
}

}  // namespace
}  // namespace relay::envelope
