# Writes OUTPUT, a C++ source with the commit of SOURCE_DIR: COMMIT if that is set, else what git says,
# else "unknown". An unchanged file keeps its time.
if(NOT COMMIT)
  find_program(GIT git)
  if(GIT)
    # Only of a repository that has its top here: another one may lie around a copy of the sources.
    execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse --show-toplevel
                    OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    file(REAL_PATH ${SOURCE_DIR} here)
    if(top AND top STREQUAL here)
      execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} rev-parse --short=12 HEAD
                      OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
  endif()
endif()
if(NOT COMMIT)
  set(COMMIT unknown)
endif()
set(text "#include \"cli/commit.h\"\nnamespace relay::cli {\nstd::string_view commit() {\n  return \"${COMMIT}\";\n}\n}  // namespace relay::cli\n")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${OUTPUT} "${text}")
endif()
