# What makes a memory error end the program instead of handing it over. tests/e2e/test_hardening.py
# looks for each of these in the binary.
include(CheckCXXCompilerFlag)

add_compile_options(-Wformat -Werror=format-security)
# Bounds of operator[], front() and the like in the standard library.
add_compile_definitions(_GLIBCXX_ASSERTIONS)

if(RELAY_SANITIZE OR RELAY_FUZZ)
  return()  # they check more, and intercept what FORTIFY replaces
endif()

# -fPIE rather than what CMake would choose for libraries, -fPIC: calls within the program stay direct.
add_compile_options(-fPIE -fstack-protector-strong)
add_link_options(-pie -Wl,-z,relro,-z,now,-z,noexecstack)
# By the architecture and the compiler: x86, AArch64.
foreach(flag IN ITEMS -fstack-clash-protection -fcf-protection -mbranch-protection=standard)
  string(MAKE_C_IDENTIFIER "RELAY_HAS${flag}" known)
  check_cxx_compiler_flag(${flag} ${known})
  if(${known})
    add_compile_options(${flag})
  endif()
endforeach()
# It needs optimisation. Distributions that define it themselves may have another level.
add_compile_options("$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>")
