#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <system_error>

#include "core/endpoint_errors.h"
#include "core/shortage.h"
#include "core/tls_remedy.h"

namespace relay {
namespace {

TEST(EndpointErrors, AServerThatIsAwayHidesNoMistake) {
  EndpointErrors errors;
  errors.add({ErrorClass::transient, "unreachable", "a is away", "start it", {}});
  errors.add(misconfigured("authentication", "b refuses", "correct the password"));
  errors.add({ErrorClass::transient, "unreachable", "c is away", "start c", {}});
  const Error error = errors.error();
  EXPECT_EQ(error.error_class, ErrorClass::transient);
  EXPECT_EQ(error.code, "authentication");
  EXPECT_EQ(error.message, "b refuses; and a is away");
  EXPECT_EQ(error.remedy, "correct the password; and start it");
}

TEST(EndpointErrors, ErrorsOfOneKindAreToldByTheFirst) {
  EndpointErrors errors;
  errors.add(misconfigured("authentication", "a refuses", "correct it"));
  errors.add(misconfigured("authentication", "b refuses", "correct it"));
  EXPECT_EQ(errors.error().message, "a refuses");
  EXPECT_EQ(errors.error().error_class, ErrorClass::misconfigured);
}

TEST(TlsRemedy, IsForWhatWasSaid) {
  EXPECT_EQ(tls_remedy("self-signed certificate", "set tls_ca"), "set tls_ca");
  EXPECT_NE(tls_remedy("certificate has expired", "set tls_ca").find("renew the server's"),
            std::string::npos);
  EXPECT_NE(tls_remedy("sslv3 alert certificate expired", "set tls_ca").find("the client's"),
            std::string::npos);
  EXPECT_NE(tls_remedy("Hostname mismatch", "set tls_ca").find("host name"), std::string::npos);
}

TEST(Shortage, SaysWhatTheProcessHasRunOutOf) {
  EXPECT_EQ(shortage::error_of(std::bad_alloc(), "reading").code, "out_of_memory");
  const std::system_error thread(std::make_error_code(std::errc::resource_unavailable_try_again));
  EXPECT_EQ(shortage::error_of(thread, "starting").code, "out_of_threads");
  const Error defect = shortage::error_of(std::runtime_error("strange"), "reading");
  EXPECT_EQ(defect.code, "internal");
  EXPECT_EQ(defect.message, "reading: strange");
}

TEST(Shortage, LeavesAnErrorThatHasAnotherCause) {
  const Error answered{ErrorClass::transient, "53300", "too many connections", "raise them", {}};
  EXPECT_EQ(shortage::explained(answered).remedy, "raise them");
  const Error away{ErrorClass::transient, "unreachable", "refused", "start it", {}};
  EXPECT_EQ(shortage::explained(away).remedy, "start it");
}

}  // namespace
}  // namespace relay
