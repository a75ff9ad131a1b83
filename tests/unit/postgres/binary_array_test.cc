#include "postgres/binary_array.h"

#include <gtest/gtest.h>

#include <string>

namespace relay::postgres {
namespace {

TEST(BinaryArray, HoldsIntegersAsTheServerReadsThem) {
  BinaryArray array(BinaryArray::Element::int8);
  array.add(std::int64_t{1} << 40);
  array.add(std::int64_t{-2});
  const std::string header{"\0\0\0\1\0\0\0\0\0\0\0\x14\0\0\0\2\0\0\0\1", 20};
  const std::string first{"\0\0\0\x8\0\0\1\0\0\0\0\0", 12};
  const std::string second{"\0\0\0\x8\xff\xff\xff\xff\xff\xff\xff\xfe", 12};
  EXPECT_EQ(array.finish(), header + first + second);
}

}  // namespace
}  // namespace relay::postgres
