#include "admin/access.h"

#include <gtest/gtest.h>

namespace relay::admin {
namespace {

HttpRequest with_header(const std::string& value) {
  HttpRequest request;
  request.headers["authorization"] = value;
  return request;
}

TEST(Access, IsClosedToAllWhereNoTokenIsConfigured) {
  EXPECT_EQ(access_of({}, ""), Access::closed);
  EXPECT_EQ(access_of(with_header("Bearer "), ""), Access::closed);
  EXPECT_EQ(access_of(with_header("Bearer t0ken"), ""), Access::closed);
}

TEST(Access, IsGrantedToWhoSendsTheToken) {
  EXPECT_EQ(access_of(with_header("Bearer t0ken"), "t0ken"), Access::granted);
  EXPECT_EQ(access_of(with_header("bearer t0ken"), "t0ken"), Access::granted);
}

TEST(Access, IsDeniedToAllOthers) {
  EXPECT_EQ(access_of({}, "t0ken"), Access::denied);
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0kenn",
                             "Bearer  t0ken", "Bearer T0KEN", "Basic t0ken", "t0ken"}) {
    EXPECT_EQ(access_of(with_header(header), "t0ken"), Access::denied) << header;
  }
}

}  // namespace
}  // namespace relay::admin
