#include "connector/header_object.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(HeaderObject, IsEmptyWithoutHeaders) {
  EXPECT_EQ(HeaderObject().json(), "");
}

TEST(HeaderObject, HoldsTheLastOfEachName) {
  HeaderObject headers;
  headers.add("a", "1");
  headers.add("b", "\"");
  headers.add("a", "2");
  EXPECT_EQ(headers.json(), R"({"b":"\"","a":"2"})");
}

TEST(HeaderObject, WritesBytesThatAreNoTextInBase64) {
  EXPECT_EQ(as_text("ü"), "ü");
  EXPECT_EQ(as_text("\xff"), "base64:/w==");
  EXPECT_EQ(as_text("\xff\xfe"), "base64://4=");
  EXPECT_EQ(as_text(std::string_view("a\0b", 3)), "base64:YQBi");
}

}  // namespace
}  // namespace relay
