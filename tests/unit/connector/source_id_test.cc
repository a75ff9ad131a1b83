#include "connector/source_id.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace relay {
namespace {

TEST(SourceId, HoldsThePrefixAsOnePart) {
  EXPECT_EQ(id_scope("orders"), "orders:");
  EXPECT_EQ(id_scope("a:b"), "a%3Ab:");
  EXPECT_EQ(id_scope("a%3Ab"), "a%253Ab:");
  EXPECT_EQ(id_scope(""), "");
}

TEST(SourceId, OfDifferentPrefixesNeverIsTheSame) {
  const auto ids = rc::gen::container<std::string>(rc::gen::element(':', '%', '3', 'A', '2', '5'));
  rc::check([&] {
    const std::string a = *ids;
    const std::string b = *ids;
    const std::string given_to_a = *ids;
    const std::string given_to_b = *ids;
    RC_PRE(a != b && !a.empty() && !b.empty());
    RC_ASSERT(id_scope(a) + given_to_a != id_scope(b) + given_to_b);
  });
}

TEST(SourceId, OfDifferentPartsNeverIsTheSame) {
  const auto ids = rc::gen::container<std::string>(rc::gen::element(':', '%', '3', 'A', '1'));
  rc::check([&] {
    const std::string a = *ids;
    const std::string b = *ids;
    const std::string last_of_a = *ids;
    const std::string last_of_b = *ids;
    const bool same = a == b && last_of_a == last_of_b;
    RC_ASSERT((id_part(a) + ':' + last_of_a == id_part(b) + ':' + last_of_b) == same);
  });
}

}  // namespace
}  // namespace relay
