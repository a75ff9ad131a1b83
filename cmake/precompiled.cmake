# Headers that most files include, compiled once, for the builds with sanitizers: parsing them takes half
# of the time that those builds take. The other builds do without, so a file that leaves out a header
# that it needs does not compile there.
# A target whose libraries define something that changes system headers (hiredis: _FILE_OFFSET_BITS)
# includes them as they are.
set(CMAKE_PCH_WARN_INVALID OFF)
# fmt's pragmas leave __OPTIMIZE__ defined in what is precompiled, and simdjson's parser has another layout
# where that is not defined: all files must agree.
add_compile_definitions(SIMDJSON_DEVELOPMENT_CHECKS=1)
function(relay_precompile name)
  add_library(${name} OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cc)
  target_link_libraries(${name} PRIVATE fmt::fmt spdlog::spdlog tl::expected simdjson::simdjson
                                        relay_flags)
  target_precompile_headers(${name} PRIVATE
    <algorithm> <array> <charconv> <chrono> <cstdint> <deque> <functional> <map> <memory> <optional>
    <set> <span> <stop_token> <string> <string_view> <thread> <utility> <vector> <fmt/format.h>
    <tl/expected.hpp> ${ARGN})
endfunction()

relay_precompile(relay_precompiled)
if(RELAY_TESTS)
  relay_precompile(relay_precompiled_tests <gtest/gtest.h> <rapidcheck/gtest.h>)
  target_link_libraries(relay_precompiled_tests PRIVATE GTest::gtest_main rapidcheck)
endif()
