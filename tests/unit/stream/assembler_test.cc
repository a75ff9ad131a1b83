#include "stream/assembler.h"

#include <gtest/gtest.h>

#include <string>

#include "stream/changes.h"

namespace relay::stream {
namespace {

namespace pgoutput = postgres::pgoutput;
using changes::Inserted;
using postgres::Lsn;

class AssemblerTest : public testing::Test {
 protected:
  Assembler assembler_{{Lsn{100}, *Snapshot::parse("50:60:55"), {70}}, 0};

  void SetUp() override { take(&changes::events()); }

  std::string take(const pgoutput::Message& message) {
    const auto step = assembler_.take(message);
    if (!step) return step.error().code;
    if (const auto* event = std::get_if<Assembler::Event>(&*step)) {
      return std::to_string(event->n) + "." + std::to_string(event->ordinal) + "=" +
             std::string(event->row.payload);
    }
    if (const auto* end = std::get_if<Assembler::End>(&*step)) {
      return "end " + std::to_string(end->n) + " xid " + std::to_string(end->xid) + " events " +
             std::to_string(end->events);
    }
    return std::holds_alternative<Assembler::Passed>(*step) ? "passed" : "";
  }
  std::string begin(std::uint64_t lsn) { return take(pgoutput::Begin{Lsn{lsn}, {}, 0}); }
  std::string insert(Xid xid, std::int64_t seq) { return take(Inserted(xid, seq).message()); }
  std::string commit(std::uint64_t lsn) {
    return take(pgoutput::Commit{Lsn{lsn}, Lsn{lsn + 10}, {}});
  }
};

TEST_F(AssemblerTest, NumbersTransactionsAndTheirEvents) {
  EXPECT_EQ(begin(100), "");
  EXPECT_EQ(insert(80, 7), "1.1=7");
  EXPECT_EQ(insert(80, 8), "1.2=8");
  EXPECT_TRUE(assembler_.within_transaction());
  EXPECT_EQ(commit(100), "end 1 xid 80 events 2");
  EXPECT_FALSE(assembler_.within_transaction());
  begin(110);
  EXPECT_EQ(insert(81, 9), "2.1=9");
}

TEST_F(AssemblerTest, LeavesOutWhatWasAccountedForBefore) {
  begin(90);  // at or below the recorded place
  EXPECT_EQ(insert(80, 1), "");
  EXPECT_EQ(commit(90), "passed");
  begin(110);
  EXPECT_EQ(insert(59, 2), "");  // seen by the snapshot
  EXPECT_EQ(commit(110), "passed");
  begin(120);
  EXPECT_EQ(insert(70, 3), "");  // settled since
  EXPECT_EQ(commit(120), "passed");
  begin(130);
  EXPECT_EQ(insert(55, 4), "1.1=4");  // open when the snapshot was taken
}

TEST_F(AssemblerTest, TransactionsWithoutEventsAreOnlyPassed) {
  begin(100);
  const auto other = changes::table(17001, "public", "events");
  EXPECT_EQ(take(&other), "");
  EXPECT_EQ(take(Inserted(80, 1, other).message()), "");
  EXPECT_EQ(commit(100), "passed");
}

TEST_F(AssemblerTest, ANewSessionRepeatsNothing) {
  begin(100);
  insert(80, 1);
  commit(100);
  begin(110);
  insert(81, 2);
  assembler_.session_ended();
  EXPECT_TRUE(assembler_.within_transaction());
  take(&changes::events());
  begin(100);
  EXPECT_EQ(insert(80, 1), "");
  EXPECT_EQ(commit(100), "");
  begin(110);
  EXPECT_EQ(insert(81, 2), "");
  EXPECT_EQ(insert(81, 3), "2.2=3");
  EXPECT_EQ(commit(110), "end 2 xid 81 events 2");
}

TEST_F(AssemblerTest, APublicationThatIsNotOursIsRefused) {
  const auto narrow = changes::table(17002, "pgstream", "events_overflow", {"id", "payload"});
  EXPECT_EQ(take(&narrow), "stream_events");
  begin(100);
  Inserted text(80, 1);
  text.row()[1].kind = pgoutput::Value::Kind::text;
  EXPECT_EQ(take(text.message()), "stream_events");
  Inserted null(80, 1);
  null.row()[5] = {};
  EXPECT_EQ(take(null.message()), "stream_events");
  Inserted truncated(80, 1);
  truncated.row().pop_back();
  EXPECT_EQ(take(truncated.message()), "stream_events");
}

}  // namespace
}  // namespace relay::stream
