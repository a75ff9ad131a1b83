#include "backends/pg_inbox/verdict.h"

#include <gtest/gtest.h>

namespace relay::pg_inbox {
namespace {

using postgres::Diagnosis;
using std::chrono::seconds;
using Others = Suspect::Others;

const Destination kThere{"here:1/shop", R"("s"."t")", R"("r")"};

Diagnosis reported(std::string state, std::string message = "m", std::string function = "f") {
  Diagnosis diagnosis;
  diagnosis.state = std::move(state);
  diagnosis.message = std::move(message);
  diagnosis.function = std::move(function);
  return diagnosis;
}

Diagnosis raised(std::string state) {
  Diagnosis diagnosis = reported(std::move(state), R"(no "x")", "exec_stmt_raise");
  diagnosis.in_code = true;
  return diagnosis;
}

Error judged(const Diagnosis& diagnosis) {
  return judge(postgres::error_of_state(diagnosis.state, "as it was"), diagnosis, kThere, nullptr);
}

TEST(InboxVerdict, ValuesAndConstraintsAreTheRowsOwn) {
  for (const char* state : {"21000", "22021", "22P02", "23514", "23505", "44000", "54000"}) {
    EXPECT_EQ(blame_for(reported(state)), Blame::row) << state;
    EXPECT_EQ(blame_for(raised(state)), Blame::row) << state;
    EXPECT_EQ(judged(reported(state)).error_class, ErrorClass::rejected) << state;
    EXPECT_NE(judged(reported(state)).remedy.find(kThere.table), std::string::npos) << state;
  }
}

TEST(InboxVerdict, WhatATriggerRaisesIsTheRowsOwn) {
  for (const char* state : {"P0001", "P0002", "U0001", "55000", "42501", "0A000", "XX000", "12345",
                            "42P01", "28P01", "3D000"}) {
    EXPECT_EQ(blame_for(raised(state)), Blame::row) << state;
    EXPECT_EQ(judged(raised(state)).error_class, ErrorClass::rejected) << state;
  }
}

TEST(InboxVerdict, WhatMayHavePassedByItselfIsNotCertainWhereATriggerRaisesIt) {
  for (const char* state :
       {"40001", "40P01", "55P03", "57014", "57P01", "53100", "53300", "08006", "25006"}) {
    EXPECT_EQ(blame_for(raised(state)), Blame::doubtful) << state;
    EXPECT_EQ(judged(raised(state)).error_class, ErrorClass::transient) << state;
  }
}

TEST(InboxVerdict, TroubleOfTheServerIsNoRows) {
  for (const char* state : {"53100", "53300", "57014", "57P01", "25006"}) {
    EXPECT_EQ(blame_for(reported(state)), Blame::server) << state;
    EXPECT_EQ(judged(reported(state)).error_class, ErrorClass::transient) << state;
  }
  for (const char* state : {"40001", "40P01", "55P03"}) {
    EXPECT_EQ(blame_for(reported(state)), Blame::moment) << state;
    EXPECT_EQ(judged(reported(state)).error_class, ErrorClass::transient) << state;
  }
  Diagnosis statement = reported("42P01");
  statement.in_statement = true;
  EXPECT_EQ(blame_for(statement), Blame::server);
}

TEST(InboxVerdict, WhatOnlyOtherRowsCanTellIsSuspect) {
  for (const char* state : {"42501", "0A000", "XX000", "55000", "42883", "38000"}) {
    EXPECT_EQ(blame_for(reported(state)), Blame::suspect) << state;
  }
  for (const char* state : {"53200", "58030", "08001", "HV000"}) {
    EXPECT_EQ(blame_for(reported(state)), Blame::doubtful) << state;
  }
}

TEST(InboxVerdict, APrivilegeComesWithItsGrant) {
  EXPECT_EQ(judged(reported("42501", "permission denied for sequence numbers")).remedy,
            R"(GRANT USAGE ON sequence "numbers" TO "r";)");
  EXPECT_EQ(judged(reported("42501", "permission denied for function f")).remedy,
            R"(GRANT EXECUTE ON function "f" TO "r";)");
  EXPECT_EQ(judged(reported("42501", "permission denied for table t")).remedy,
            R"(GRANT SELECT, INSERT ON "s"."t" TO "r";)");
  Diagnosis inside = reported("42501", "permission denied for table audit");
  inside.in_code = true;
  EXPECT_NE(judged(inside).remedy.find("SECURITY DEFINER"), std::string::npos);
  const auto policy =
      judged(reported("42501", R"(new row violates row-level security policy "p" for table "t")",
                      "ExecWithCheckOptions"));
  EXPECT_NE(policy.remedy.find("row security"), std::string::npos);
  EXPECT_NE(policy.message.find(R"("p")"), std::string::npos);
}

TEST(InboxVerdict, NothingOfARowIsInAMessage) {
  const auto shown = [](const char* state, const char* message) {
    return text_without_values(reported(state, message), nullptr);
  };
  EXPECT_EQ(shown("22P02", R"(invalid input syntax for type integer: "SECRET")"),
            R"(invalid input syntax for type integer: "...")");
  EXPECT_EQ(shown("22003", R"(value "a"SECRET"b" is out of range for type integer)"),
            R"(value "..." is out of range for type integer)");
  EXPECT_EQ(shown("22P02", "syntaxe en entr\u00e9e invalide : \u00ab SECRET \u00bb"),
            "syntaxe en entr\u00e9e invalide : \"...\"");
  EXPECT_EQ(shown("42P01", R"(relation "SECRET" does not exist)"),
            R"(relation "..." does not exist)");
  EXPECT_EQ(shown("22012", "division by zero"), "division by zero");
  EXPECT_EQ(shown("23514", R"(new row for relation "t" violates check constraint "c")"),
            R"(new row for relation "t" violates check constraint "c")");
  EXPECT_EQ(text_without_values(raised("U0001"), nullptr), R"(no "x")");
  EXPECT_EQ(judged(reported("22P02", R"(bad: "SECRET")")).message, R"(here:1/shop: bad: "...")");
}

TEST(InboxVerdict, ANameThatIsNotMadeOfTheMessageIsShown) {
  const auto shown = [](std::string quoted, std::string_view body) {
    Message message;
    message.body = body;
    return text_without_values(reported("42P01", "relation \"" + quoted + "\" does not exist"),
                               &message);
  };
  const std::string hidden = R"(relation "..." does not exist)";
  EXPECT_EQ(shown("audit", R"({"n": 1})"), R"(relation "audit" does not exist)");
  EXPECT_EQ(shown("events_secret1", R"({"n": "SECRET1"})"), hidden);
  EXPECT_EQ(shown("a secret", R"({"n": 1})"), hidden);
  EXPECT_EQ(shown("5512", R"({"n": 1})"), hidden);
  EXPECT_EQ(shown("Größe", R"({"n": 1})"), hidden);
}

TEST(InboxSuspect, IsGuiltyAtOnceWhereOthersAreWritten) {
  Suspect suspect;
  const Suspect::Time start{};
  suspect.refused("a", start);
  EXPECT_TRUE(suspect.is_guilty(Blame::suspect, false, Others::written, start));
  EXPECT_FALSE(suspect.is_guilty(Blame::suspect, false, Others::refused, start));
  EXPECT_FALSE(suspect.is_guilty(Blame::suspect, false, Others::none, start));
}

TEST(InboxSuspect, NeedsTimeWhereTheTroubleMayPass) {
  Suspect suspect;
  const Suspect::Time start{};
  const auto guilty = [&](Others others, seconds after) {
    return suspect.is_guilty(Blame::doubtful, true, others, start + after);
  };
  for (int i = 1; i < Suspect::kTries; ++i) suspect.refused("a", start);
  EXPECT_FALSE(guilty(Others::written, seconds(100)));
  suspect.refused("a", start);
  EXPECT_FALSE(guilty(Others::written, seconds(9)));
  EXPECT_TRUE(guilty(Others::written, seconds(10)));
  EXPECT_FALSE(guilty(Others::none, seconds(59)));
  EXPECT_TRUE(guilty(Others::none, seconds(60)));
  suspect.refused("b", start + seconds(100));
  EXPECT_EQ(suspect.tries(), 1);
}

TEST(InboxSuspect, IsOverdueUntilItFailsOtherwise) {
  Suspect suspect;
  suspect.overdue("a", {});
  EXPECT_TRUE(suspect.is_overdue("a"));
  EXPECT_FALSE(suspect.is_overdue("b"));
  suspect.refused("a", {});
  EXPECT_FALSE(suspect.is_overdue("a"));
  EXPECT_EQ(suspect.tries(), 2);
  suspect.overdue("a", {});
  suspect.clear();
  EXPECT_FALSE(suspect.is_overdue("a"));
}

TEST(InboxSuspect, NeverWhereTheServerItselfRefusesAll) {
  Suspect suspect;
  const Suspect::Time start{};
  for (int i = 0; i < 1000; ++i) suspect.refused("a", start);
  const auto later = start + std::chrono::hours(1000);
  EXPECT_FALSE(suspect.is_guilty(Blame::suspect, false, Others::refused, later));
  EXPECT_FALSE(suspect.is_guilty(Blame::doubtful, false, Others::refused, later));
  EXPECT_TRUE(suspect.is_guilty(Blame::doubtful, true, Others::refused, later));
}

TEST(InboxConvictions, TheOldestAreForgotten) {
  Convictions convictions;
  for (std::size_t i = 0; i < Convictions::kKept; ++i) convictions.add(std::to_string(i));
  convictions.add("1");
  EXPECT_TRUE(convictions.has("0"));
  convictions.add("new");
  EXPECT_FALSE(convictions.has("0"));
  EXPECT_TRUE(convictions.has("1"));
  EXPECT_TRUE(convictions.has("new"));
}

}  // namespace
}  // namespace relay::pg_inbox
