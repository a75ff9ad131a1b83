#include "stream/decoding_failures.h"

#include <gtest/gtest.h>

namespace relay::stream {
namespace {

Error error_of(std::string code) {
  Error error;
  error.code = std::move(code);
  return error;
}

bool hopeless_after(int times, const std::string& code, std::int64_t step = 0) {
  DecodingFailures failures;
  for (int i = 0; i < times; ++i) failures.add(error_of(code), 7 + i * step);
  return failures.hopeless();
}

TEST(DecodingFailures, TenAtOnePlaceAreHopeless) {
  for (const char* code : {"XX000", "22012", "42704", "58P01"}) {
    EXPECT_FALSE(hopeless_after(9, code)) << code;
    EXPECT_TRUE(hopeless_after(10, code)) << code;
  }
}

TEST(DecodingFailures, ProgressInBetweenIsHope) {
  EXPECT_FALSE(hopeless_after(100, "XX000", 1));
}

TEST(DecodingFailures, WhatIsNotOfDecodingDoesNotCount) {
  for (const char* code :
       {"connection", "57P01", "08006", "53300", "55006", "28P01", "3D000", ""}) {
    EXPECT_FALSE(hopeless_after(100, code)) << code;
  }
}

TEST(DecodingFailures, ANewSlotBeginsAnew) {
  DecodingFailures failures;
  for (int i = 0; i < 10; ++i) failures.add(error_of("XX000"), 7);
  failures.forget();
  for (int i = 0; i < 9; ++i) failures.add(error_of("XX000"), 7);
  EXPECT_FALSE(failures.hopeless());
}

}  // namespace
}  // namespace relay::stream
