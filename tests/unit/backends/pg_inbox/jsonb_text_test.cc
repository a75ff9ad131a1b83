#include "backends/pg_inbox/jsonb_text.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::pg_inbox {
namespace {

TEST(JsonbText, TakesWhatPostgresTakes) {
  for (const char* text :
       {"{}", "[]", " {\"a\" : [1, -2.5e+10, true, false, null, \"x\"] } ", "\"text\"", "0", "-0",
        "12345678901234567890123456789012345678901234567890.123", "1e400", "null", "\n[ ]\t",
        R"("\u00e9 \ud83d\ude00 \n \/ \\ \"")", "{\"\": {\"\": [[[]]]}}", "\"\xc3\xa9\x7f\""}) {
    EXPECT_TRUE(jsonb_takes(text)) << text;
  }
}

TEST(JsonbText, DoesNotTakeWhatPostgresRefuses) {
  for (const char* text : {"",
                           " ",
                           "text",
                           "{",
                           "}",
                           "[1,]",
                           "[1 2]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{a:1}",
                           "{\"a\":1,}",
                           "01",
                           "-",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "0x1",
                           "tru",
                           "nulll",
                           "\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "'a'",
                           "1 2",
                           "{} {}",
                           "NaN",
                           "Infinity",
                           "\"a\nb\"",
                           "\"\\u0000\"",
                           "{\"\\u0000\":1}",
                           R"("\ud83d")",
                           R"("\ude00")",
                           R"("\ud83dx")",
                           R"("\ud83d\u0041")",
                           "\"\xff\"",
                           "\"\xc3\""}) {
    EXPECT_FALSE(jsonb_takes(text)) << text;
  }
}

TEST(JsonbText, NulBytesAreRefused) {
  EXPECT_FALSE(jsonb_takes(std::string_view("\"a\0b\"", 5)));
  EXPECT_FALSE(jsonb_takes(std::string_view("{}\0", 3)));
}

TEST(JsonbText, NestingHasNoLimitHere) {
  EXPECT_TRUE(jsonb_takes(std::string(900'000, '[') + std::string(900'000, ']')));
  EXPECT_FALSE(jsonb_takes(std::string(900'000, '[') + std::string(900'001, ']')));
  EXPECT_FALSE(jsonb_takes(std::string(900'000, '[')));
  EXPECT_FALSE(jsonb_takes("[{]}"));
}

TEST(JsonbText, WhatIsNotTakenIsStoredAsBase64WithItsType) {
  EXPECT_EQ(raw_payload("hello", "text/plain"),
            R"({"raw_base64":"aGVsbG8=","content_type":"text/plain"})");
  EXPECT_EQ(raw_payload(std::string_view("\0\xff", 2), ""),
            R"({"raw_base64":"AP8=","content_type":"application/octet-stream"})");
  EXPECT_EQ(raw_payload("\"\\u0000\"", ""),
            R"({"raw_base64":"Ilx1MDAwMCI=","content_type":"application/json"})");
  EXPECT_EQ(raw_payload("", "a/b"), R"({"raw_base64":"","content_type":"a/b"})");
  EXPECT_TRUE(jsonb_takes(raw_payload("x", "\xff")));
  EXPECT_TRUE(jsonb_takes(raw_payload("x", std::string_view("a\0b", 3))));
}

TEST(JsonbText, TextIsUtf8WithoutNul) {
  EXPECT_TRUE(text_takes(""));
  EXPECT_TRUE(text_takes("Zo\xc3\xab"));
  EXPECT_FALSE(text_takes("\xc3"));
  EXPECT_FALSE(text_takes(std::string_view("a\0", 2)));
}

}  // namespace
}  // namespace relay::pg_inbox
