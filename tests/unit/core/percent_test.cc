#include "core/percent.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay {
namespace {

TEST(Percent, EncodesAllButUnreservedCharacters) {
  std::string out;
  append_percent_encoded(out, "a b/ü~.-_?");
  EXPECT_EQ(out, "a%20b%2F%C3%BC~.-_%3F");
}

TEST(Percent, DecodesWhatItEncoded) {
  EXPECT_TRUE(rc::check([](const std::string& bytes) {
    std::string encoded;
    append_percent_encoded(encoded, bytes);
    RC_ASSERT(percent_decoded(encoded) == bytes);
  }));
}

TEST(Percent, AMalformedEscapeIsRefusedOrStandsForItself) {
  for (const char* text : {"%", "a%4", "%4", "%zz", "%-1", "%+1", "% 1", "%41%"}) {
    EXPECT_FALSE(percent_decoded(text)) << text;
  }
  EXPECT_EQ(percent_decoded("%41%c3%BC"), "Aü");
  EXPECT_EQ(percent_decoded_where_possible("%41%4%zz%"), "A%4%zz%");
}

}  // namespace
}  // namespace relay
