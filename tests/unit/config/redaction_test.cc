#include "config/redaction.h"

#include <gtest/gtest.h>

#include "core/secrets.h"

namespace relay::config {
namespace {

TEST(Redaction, MasksWhatMayHoldSecretsAndLeavesNamesAlone) {
  secrets::remember("production", "${env:STAGE}");
  EXPECT_EQ(redacted_rows(R"([{"pipeline":"production","last_error":"in production"}])"),
            R"([{"pipeline":"production","last_error":"in ${env:STAGE}"}])");
  EXPECT_EQ(redacted_column("name", "production"), "production");
}

TEST(Redaction, OfAConfigurationHidesLiteralsAndShowsReferences) {
  EXPECT_EQ(redacted_column("config", R"({"nats_token":"abc","nats_url":"nats://u:p@h",)"
                                      R"("sink":{"password":"${env:P}","n":[1,true,null]}})"),
            R"({"nats_token":"***","nats_url":"nats://***@h",)"
            R"("sink":{"password":"${env:P}","n":[1,true,null]}})");
}

TEST(Redaction, MasksHeadersThatAnOlderVersionStored) {
  EXPECT_EQ(redacted_rows(R"([{"headers":{"Authorization":"Bearer x","a":"b"}}])"),
            R"([{"headers":{"Authorization":"***","a":"b"}}])");
}

}  // namespace
}  // namespace relay::config
