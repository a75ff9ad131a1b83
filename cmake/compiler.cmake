# Compiler flags, sanitizers, and the faster linker and compiler cache where they are there.
add_library(relay_flags INTERFACE)
target_compile_options(relay_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 sees uninitialised reads in std::optional<std::string> where there are none.
  target_compile_options(relay_flags INTERFACE -Wno-maybe-uninitialized)
endif()
if(RELAY_WERROR)
  target_compile_options(relay_flags INTERFACE -Werror)
endif()
if(RELAY_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
# Line numbers for stack traces are enough: full debug information nearly doubles the time to compile.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
if(RELAY_SANITIZE)
  # Not optimised: with sanitizers compiling takes longer than testing.
  set(CMAKE_CXX_FLAGS_DEBUG "-g1")
  add_compile_options(-fsanitize=${RELAY_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${RELAY_SANITIZE})
  if(RELAY_SANITIZE MATCHES "thread")
    # It knows no fences; Asio's queues are guarded by mutexes beside them.
    add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()
