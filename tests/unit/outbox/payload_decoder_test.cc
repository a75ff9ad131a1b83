#include "outbox/payload_decoder.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <utility>
#include <vector>

#include "outbox/json_scanner.h"

namespace relay::outbox {
namespace {

Payload decoded(std::string_view text) {
  auto payload = decode_payload(text);
  EXPECT_TRUE(payload) << text;
  return payload ? *payload : Payload{};
}

std::string refusal(std::string_view text) {
  auto payload = decode_payload(text);
  if (payload) return "";
  EXPECT_EQ(payload.error().error_class, ErrorClass::rejected);
  return payload.error().code;
}

TEST(PayloadDecoder, GivesRowsByteForByte) {
  const Payload payload = decoded(
      R"({"v": 1, "deleted": [{"a": "x]\"}\\"}], "inserted": [{"n": 1.500000000000000000000000001}, )"
      R"({"t": "\u0001 ü"}], "refresh_mode": "DIFFERENTIAL", "refresh_duration_ms": 12})");
  EXPECT_EQ(payload.deleted, R"([{"a": "x]\"}\\"}])");
  EXPECT_EQ(payload.inserted, R"([{"n": 1.500000000000000000000000001}, {"t": "\u0001 ü"}])");
  EXPECT_EQ(payload.refresh_mode, "DIFFERENTIAL");
  EXPECT_EQ(payload.refresh_duration_ms, 12);
  EXPECT_FALSE(payload.full_refresh);
  EXPECT_FALSE(payload.claim_check);
}

TEST(PayloadDecoder, ReadsAllFourForms) {
  const std::string inline_form = R"({"v": 1, "deleted": [], "inserted": [{}]})";
  const std::string claim = R"({"v": 1, "claim_check": true})";
  const std::string full = R"({"v": 1, "inserted": [{}], "full_refresh": true})";
  const std::string full_claim = R"({"v": 1, "claim_check": true, "full_refresh": true})";
  EXPECT_EQ(decoded(inline_form).inserted, "[{}]");
  EXPECT_TRUE(decoded(claim).claim_check);
  EXPECT_TRUE(decoded(full).full_refresh);
  EXPECT_TRUE(decoded(full_claim).claim_check && decoded(full_claim).full_refresh);
}

TEST(PayloadDecoder, AnEmptyArrayAndNullMeanNoRows) {
  const Payload payload = decoded(R"({"v":1,"inserted":[ ],"deleted":null,"refresh_mode":null})");
  EXPECT_EQ(payload.inserted, "");
  EXPECT_EQ(payload.deleted, "");
  EXPECT_EQ(payload.refresh_mode, "");
}

TEST(PayloadDecoder, AnUnknownDurationIsNoReasonToRefuse) {
  EXPECT_EQ(decoded(R"({"v":1,"refresh_duration_ms":null})").refresh_duration_ms, -1);
  EXPECT_EQ(decoded(R"({"v":1,"refresh_duration_ms":12.75})").refresh_duration_ms, 12);
  EXPECT_EQ(decoded(R"({"v":1,"refresh_duration_ms":"soon"})").refresh_duration_ms, -1);
}

TEST(PayloadDecoder, AnUnknownVersionIsRefusedByName) {
  EXPECT_EQ(refusal(R"({"v": 2, "inserted": []})"), "payload_version");
  EXPECT_EQ(refusal(R"({"v": "1", "inserted": []})"), "payload_version");
  // Whatever else a later version changes.
  EXPECT_EQ(refusal(R"({"v": 2, "inserted": {}})"), "payload_version");
}

TEST(PayloadDecoder, WhatIsNoPayloadIsRefused) {
  for (const char* text : {"", "null", "[]", "{", "{}", R"({"inserted": []})", R"({"v": 1)",
                           R"({"v": 1, "inserted": {}})", R"({"v": 1, "inserted": [})",
                           R"({"v": 1} x)", R"({"v")", R"({"v": 1, "a)"}) {
    EXPECT_EQ(refusal(text), "payload_malformed") << text;
  }
}

TEST(FindField, GivesTheTextOfATopLevelValue) {
  const std::string row = R"({"a": {"id": 5}, "id": "x\"", "list": [1, 2]})";
  EXPECT_EQ(find_field(row, "id"), R"("x\"")");
  EXPECT_EQ(find_field(row, "list"), "[1, 2]");
  EXPECT_EQ(find_field(row, "none"), "");
}

/// Any JSON value, in any spelling.
rc::Gen<std::string> any_json(int depth) {
  const auto scalar = rc::gen::element<std::string>("null", "true", "-0.5e10", "\"\"", R"("\"")",
                                                    R"("\\")", R"("]},{[\\\"")", R"("\u00e9, ")",
                                                    "123456789012345678901234567890.5");
  if (depth == 0) return scalar;
  const auto space = rc::gen::element<std::string>("", " ", "\n\t");
  const auto members = rc::gen::container<std::vector<std::string>>(any_json(depth - 1));
  const auto nested = rc::gen::map(
      rc::gen::tuple(rc::gen::arbitrary<bool>(), members, space), [](const auto& made) {
        const auto& [object, values, gap] = made;
        std::string json = object ? "{" : "[";
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (i > 0) json += gap + "," + gap;
          if (object) json += "\"k\\\"" + std::to_string(i) + "\"" + gap + ":" + gap;
          json += values[i];
        }
        return json + gap + (object ? "}" : "]");
      });
  return rc::gen::oneOf(scalar, nested);
}

TEST(PayloadDecoderProperty, FindsEachMemberWhateverTheOthersHold) {
  const bool holds = rc::check([] {
    const auto row = rc::gen::resize(4, any_json(3));
    const auto inserted = "[" + *row + ", " + *row + "]";
    const auto deleted = "[" + *row + "]";
    std::vector<std::string> members = {
        "\"v\": 1",           "\"inserted\": " + inserted,  "\"deleted\":" + deleted,
        "\"other\": " + *row, "\"refresh_mode\": \"FULL\"", "\"full_refresh\" :true"};
    // In any order.
    for (std::size_t i = members.size(); i > 1; --i) {
      std::swap(members[i - 1], members[*rc::gen::inRange<std::size_t>(0, i)]);
    }
    std::string text = "{";
    for (const std::string& member : members) text += (text.size() > 1 ? ", " : "") + member;
    text += "}";
    const auto payload = decode_payload(text);
    RC_ASSERT(payload.has_value());
    RC_ASSERT(payload->inserted == inserted);
    RC_ASSERT(payload->deleted == deleted);
    RC_ASSERT(payload->refresh_mode == "FULL");
    RC_ASSERT(payload->full_refresh);
  });
  EXPECT_TRUE(holds);
}

TEST(PayloadDecoderProperty, NeverReadsBeyondATextThatWasCutAnywhere) {
  const bool holds = rc::check([] {
    const std::string text = R"({"v": 1, "deleted": [{"a": "\\\""}], "inserted": )" +
                             *rc::gen::resize(4, any_json(3)) + "}";
    const auto size = *rc::gen::inRange<std::size_t>(0, text.size());
    // A buffer of its own, so that an address sanitizer sees one byte too many.
    const std::vector<char> cut(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
    const auto payload = decode_payload({cut.data(), cut.size()});
    RC_ASSERT(!payload.has_value());
  });
  EXPECT_TRUE(holds);
}

}  // namespace
}  // namespace relay::outbox
