#include "postgres/pool.h"

#include <gtest/gtest.h>

#include <new>

namespace relay::postgres {
namespace {

TEST(Pool, ASessionThatCouldNotBeOpenedForLackOfMemoryTakesNoPlace) {
  Connection::Options options;
  options.read_url = []() -> std::string { throw std::bad_alloc(); };
  Pool pool(options, 1);
  EXPECT_THROW((void)pool.borrow(Deadline::never(), {}), std::bad_alloc);
  EXPECT_EQ(pool.open_connections(), 0u);
}

}  // namespace
}  // namespace relay::postgres
