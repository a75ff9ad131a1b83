# Headers that most files include, compiled once, for the builds with sanitizers: parsing them takes half
# of the time that those builds take. The other builds do without, so a file that leaves out a header
# that it needs does not compile there.
# A target whose libraries define something that changes system headers (hiredis: _FILE_OFFSET_BITS)
# includes them as they are.
set(CMAKE_PCH_WARN_INVALID OFF)
add_library(relay_precompiled OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cc)
target_link_libraries(relay_precompiled PRIVATE fmt::fmt spdlog::spdlog tl::expected
                                                simdjson::simdjson relay_flags)
target_precompile_headers(relay_precompiled PRIVATE
  <algorithm> <array> <charconv> <chrono> <cstdint> <deque> <functional> <map> <memory> <optional>
  <set> <span> <stop_token> <string> <string_view> <thread> <utility> <vector> <fmt/format.h>
  <tl/expected.hpp>)

if(RELAY_TESTS)
  add_library(relay_precompiled_tests OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cc)
  target_link_libraries(relay_precompiled_tests PRIVATE fmt::fmt spdlog::spdlog tl::expected
                        simdjson::simdjson relay_flags GTest::gtest_main rapidcheck)
  target_precompile_headers(relay_precompiled_tests PRIVATE
    <algorithm> <array> <chrono> <cstdint> <functional> <map> <memory> <optional> <span> <string>
    <string_view> <vector> <fmt/format.h> <tl/expected.hpp> <gtest/gtest.h> <rapidcheck/gtest.h>)
endif()
