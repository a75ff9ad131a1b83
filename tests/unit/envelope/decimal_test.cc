#include "envelope/decimal.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

namespace relay::envelope {
namespace {

std::string canonical(std::string_view text) {
  std::string out;
  Decimal(text).append_canonical(out);
  return out;
}

TEST(Decimal, ComparesExactlyWhateverTheLength) {
  EXPECT_LT(Decimal("9007199254740992"), Decimal("9007199254740993"));
  EXPECT_LT(Decimal("0.1000000000000000000000000000000000000001"),
            Decimal("0.1000000000000000000000000000000000000002"));
  EXPECT_LT(Decimal("-10"), Decimal("-9.99"));
  EXPECT_LT(Decimal("-1"), Decimal("0"));
  EXPECT_LT(Decimal("1e-400"), Decimal("1e-399"));
  EXPECT_GT(Decimal("1e99999999999999999999"), Decimal("12345678901234567890"));
}

TEST(Decimal, EqualNumbersAreEqualHoweverTheyAreWritten) {
  for (const char* text : {"1200", "1200.00", "1.2e3", "12E+2", "0001200", "120000e-2", "+1200"}) {
    EXPECT_EQ(Decimal(text), Decimal("1200")) << text;
    EXPECT_EQ(canonical(text), canonical("1200")) << text;
  }
  for (const char* text : {"0", "-0", "0.000", "0e5"}) {
    EXPECT_EQ(Decimal(text), Decimal("0")) << text;
    EXPECT_EQ(canonical(text), canonical("0")) << text;
  }
}

RC_GTEST_PROP(Decimal, AgreesWithIntegersOfAHundredthPart, (int a, int b)) {
  const auto written = [](int hundredths) {
    const long long value = hundredths;
    const long long size = value < 0 ? -value : value;
    std::string text = std::to_string(size / 100) + "." + std::to_string(size % 100 / 10) +
                       std::to_string(size % 10);
    return (value < 0 ? "-" : "") + text;
  };
  const std::string left = written(a);
  const std::string right = std::to_string(b) + "e-2";
  RC_ASSERT((Decimal(left) <=> Decimal(right)) == (a <=> b));
  RC_ASSERT((canonical(left) == canonical(right)) == (a == b));
}

}  // namespace
}  // namespace relay::envelope
