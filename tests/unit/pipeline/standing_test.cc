#include "pipeline/standing.h"

#include <gtest/gtest.h>

#include "connector/rewound.h"

namespace relay {
namespace {

using Kind = PipelineEnd::Kind;

Error an_error(ErrorClass error_class, std::string_view code = "test") {
  return {error_class, std::string(code), "as the test wants it", "", {}};
}

Standing running() {
  Standing standing;
  standing.source_open = standing.sink_open = true;
  return standing;
}

TEST(Standing, IsStartingUntilBothSidesAreOpen) {
  Standing standing;
  EXPECT_EQ(standing.state(0), PipelineState::starting);
  standing.source_open = true;
  EXPECT_EQ(standing.state(5), PipelineState::starting);
  standing.sink_open = true;
  EXPECT_EQ(standing.state(5), PipelineState::running);
  EXPECT_EQ(standing.state(0), PipelineState::idle);
}

TEST(Standing, IsIdleWhileItSleepsThoughNothingIsOpen) {
  Standing standing;
  standing.asleep = true;
  EXPECT_EQ(standing.state(0), PipelineState::idle);
}

TEST(Standing, AMisconfiguredSideCountsMoreThanOneThatRetries) {
  Standing standing = running();
  standing.failure(Side::reader) = an_error(ErrorClass::transient);
  EXPECT_EQ(standing.state(1), PipelineState::retrying);
  standing.failure(Side::sender) = an_error(ErrorClass::misconfigured);
  EXPECT_EQ(standing.state(1), PipelineState::misconfigured);
}

TEST(Standing, AFailureCountsMoreThanAPause) {
  Standing standing = running();
  standing.paused = true;
  EXPECT_EQ(standing.state(1), PipelineState::paused);
  standing.failure(Side::reader) = an_error(ErrorClass::transient);
  EXPECT_EQ(standing.state(1), PipelineState::retrying);
}

TEST(Standing, ReportsTheSenderSErrorFirst) {
  Standing standing = running();
  EXPECT_FALSE(standing.error());
  standing.failure(Side::reader) = an_error(ErrorClass::transient, "read");
  EXPECT_EQ(standing.error()->code, "read");
  standing.failure(Side::sender) = an_error(ErrorClass::transient, "sent");
  EXPECT_EQ(standing.error()->code, "sent");
  standing.end_with({Kind::defect, an_error(ErrorClass::transient, "defect")});
  EXPECT_EQ(standing.error()->code, "defect");
}

TEST(Standing, OnlyErrorsOfClassFencedEndAPipeline) {
  for (const auto error_class : {ErrorClass::transient, ErrorClass::throttled, ErrorClass::rejected,
                                 ErrorClass::misconfigured, ErrorClass::cancelled}) {
    EXPECT_FALSE(end_of(an_error(error_class, kRewound)));
  }
  EXPECT_EQ(end_of(an_error(ErrorClass::fenced, "fenced"))->kind, Kind::fenced);
  EXPECT_EQ(end_of(an_error(ErrorClass::fenced, kRewound))->kind, Kind::rewound);
}

TEST(Standing, NothingIsCommittedAfterAFenceOrARewoundSource) {
  for (const auto kind : {Kind::fenced, Kind::rewound}) {
    Standing standing = running();
    EXPECT_TRUE(standing.may_commit());
    standing.end_with({kind, an_error(ErrorClass::fenced)});
    EXPECT_FALSE(standing.may_commit());
    EXPECT_EQ(standing.state(1), PipelineState::standby);
  }
}

TEST(Standing, WhatWasSettledBeforeADefectMayBeCommitted) {
  Standing standing = running();
  standing.end_with({Kind::defect, an_error(ErrorClass::transient)});
  EXPECT_TRUE(standing.may_commit());
  EXPECT_EQ(standing.state(1), PipelineState::retrying);
}

TEST(Standing, ADefectNeverReplacesAnEndThatForbidsCommits) {
  Standing standing = running();
  standing.end_with({Kind::defect, an_error(ErrorClass::transient)});
  standing.end_with({Kind::rewound, an_error(ErrorClass::fenced)});
  EXPECT_EQ(standing.end->kind, Kind::rewound);
  standing.end_with({Kind::defect, an_error(ErrorClass::transient)});
  EXPECT_EQ(standing.end->kind, Kind::rewound);
}

}  // namespace
}  // namespace relay
