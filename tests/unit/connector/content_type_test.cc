#include "connector/content_type.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

TEST(ContentType, IsSaidUnderTheNamesThatAreInUse) {
  for (const auto* name : {"content-type", "Content-Type", "CONTENT-TYPE", "content_type",
                           "contentType", "ContentType", "contenttype"}) {
    EXPECT_TRUE(names_content_type(name)) << name;
  }
  for (const auto* name :
       {"", "content", "content-types", "content--type", "content-typ", "-contenttype",
        "contenttype-", "conten-ttype", "content type", "xcontent-type", "content-encoding"}) {
    EXPECT_FALSE(names_content_type(name)) << name;
  }
}

}  // namespace
}  // namespace relay
