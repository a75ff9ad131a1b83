#include "pipeline/seal.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

namespace relay {
namespace {

DeadLetter letter(std::string subject, std::string header) {
  DeadLetter made;
  made.subject = std::move(subject);
  made.headers.emplace_back("X", std::move(header));
  return made;
}

const Seal kSeal({{"env:A", "alpha-secret"}, {"env:B", "alpha"}, {"short", "xy"}, {"none", ""}});

TEST(Seal, PutsReferencesInThePlaceOfSecrets) {
  DeadLetter sealed = letter("https://h/alpha-secret/alpha?a=$1", "Bearer alpha");
  kSeal.close(sealed);
  EXPECT_TRUE(sealed.sealed);
  EXPECT_EQ(sealed.subject, "https://h/${env:A}/${env:B}?a=$$1");
  EXPECT_EQ(sealed.headers[0].second, "Bearer ${env:B}");
  ASSERT_TRUE(kSeal.open(sealed));
  EXPECT_FALSE(sealed.sealed);
  EXPECT_EQ(sealed.subject, "https://h/alpha-secret/alpha?a=$1");
  EXPECT_EQ(sealed.headers[0].second, "Bearer alpha");
}

TEST(Seal, LeavesALetterWithoutSecretsAsItIs) {
  DeadLetter plain = letter("a $ ${env:A}", "xyz");
  kSeal.close(plain);
  EXPECT_FALSE(plain.sealed);
  EXPECT_EQ(plain.subject, "a $ ${env:A}");
  ASSERT_TRUE(kSeal.open(plain));
  EXPECT_EQ(plain.subject, "a $ ${env:A}");
}

TEST(Seal, ReplacesAShortSecretWhereItIsTheWholeValue) {
  DeadLetter sealed = letter("xyz", "xy");
  kSeal.close(sealed);
  EXPECT_EQ(sealed.subject, "xyz");
  EXPECT_EQ(sealed.headers[0].second, "${short}");
}

TEST(Seal, RefusesALetterWhoseSecretIsGone) {
  DeadLetter sealed = letter("${env:GONE}", "");
  sealed.sealed = true;
  const auto opened = kSeal.open(sealed);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("${env:GONE}"), std::string::npos);
}

RC_GTEST_PROP(Seal, OpeningGivesBackWhatWasClosed, ()) {
  const auto text = rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab${}:E$")));
  const Seal seal({{"E", *rc::gen::nonEmpty(text)}, {"E:a", *rc::gen::nonEmpty(text)}});
  const std::string subject = *text;
  const std::string header = *text;
  DeadLetter sealed = letter(subject, header);
  seal.close(sealed);
  RC_ASSERT(seal.open(sealed).has_value());
  RC_ASSERT(sealed.subject == subject);
  RC_ASSERT(sealed.headers[0].second == header);
}

}  // namespace
}  // namespace relay
