# relay_room(name FOLDER path ROOMS ... LIBRARIES ...): a static library of src/<path>/*.cc (path: the
# name unless given), and unit_<name>, the test program of tests/unit/<path>/*_test.cc where there are
# any. It may include headers of itself and of the rooms that it names: the build fails otherwise.
# REGISTERS: it offers `void relay::<name>::register_backend(relay::Registry&)`, as a backend does.
function(relay_room name)
  cmake_parse_arguments(ARG "REGISTERS" "FOLDER" "ROOMS;LIBRARIES" ${ARGN})
  if(ARG_REGISTERS)
    set_property(GLOBAL APPEND PROPERTY relay_backend_folders ${name})
  endif()
  if(NOT ARG_FOLDER)
    set(ARG_FOLDER ${name})
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${ARG_FOLDER}/*.cc)
  add_library(relay_${name} STATIC ${sources})
  target_include_directories(relay_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(relay_${name} PRIVATE RELAY_VERSION="${PROJECT_VERSION}")

  set_target_properties(relay_${name} PROPERTIES relay_folder ${ARG_FOLDER})
  set(may_include ${ARG_FOLDER})
  foreach(room IN LISTS ARG_ROOMS)
    get_target_property(folder relay_${room} relay_folder)
    list(APPEND may_include ${folder})
  endforeach()
  relay_check_includes(relay_${name} ${PROJECT_SOURCE_DIR}/src/${ARG_FOLDER} ${may_include})

  list(TRANSFORM ARG_ROOMS PREPEND relay_)
  target_link_libraries(relay_${name} PUBLIC ${ARG_ROOMS} ${ARG_LIBRARIES} PRIVATE relay_flags)
  if(TARGET relay_precompiled)
    target_precompile_headers(relay_${name} REUSE_FROM relay_precompiled)
  endif()

  file(GLOB tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${ARG_FOLDER}/*_test.cc)
  if(RELAY_TESTS AND tests)
    add_executable(unit_${name} ${tests})
    target_link_libraries(unit_${name} PRIVATE relay_${name} relay_flags GTest::gtest_main rapidcheck)
    target_include_directories(unit_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/unit)
    if(TARGET relay_precompiled_tests)
      target_precompile_headers(unit_${name} REUSE_FROM relay_precompiled_tests)
    endif()
    add_test(NAME unit_${name} COMMAND unit_${name})
    # One that hangs is ended, and its output says in which test it was.
    set_tests_properties(unit_${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()

# relay_check_includes(target folder room...): the target is not built where a file of that folder includes
# a header of a folder that is none of these.
function(relay_check_includes target folder)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*.cc ${folder}/*.h)
  set(check ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/check_includes.cmake)
  set(stamp ${CMAKE_CURRENT_BINARY_DIR}/includes/${target})
  add_custom_command(
    OUTPUT ${stamp}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} "-DMAY_INCLUDE=${ARGN}" -DSTAMP=${stamp} -P ${check}
    DEPENDS ${files} ${check}
    COMMENT ""
    VERBATIM)
  add_custom_target(${target}_includes DEPENDS ${stamp})
  add_dependencies(${target} ${target}_includes)
endfunction()

# relay_backend_wanted(result name...): whether one of these backends is built.
function(relay_backend_wanted result)
  string(REPLACE "," ";" wanted "${RELAY_BACKENDS}")
  set(${result} OFF PARENT_SCOPE)
  foreach(name IN LISTS ARGN)
    if(wanted STREQUAL "all" OR name IN_LIST wanted)
      set(${result} ON PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# relay_backend(name FOLDER folder PKGCONFIG module ROOMS ... LIBRARIES ...): a broker, in
# src/backends/<folder>. It is a room, which may use those that it names beside core, config and
# connector, and is registered under its name unless RELAY_BACKENDS leaves it out; ALWAYS: it cannot be
# left out. It offers `void relay::<folder>::register_backend(relay::Registry&)`.
set_property(GLOBAL PROPERTY relay_backend_names "")
set_property(GLOBAL PROPERTY relay_backend_folders "")
set_property(GLOBAL PROPERTY relay_backends_left_out "")
function(relay_backend name)
  cmake_parse_arguments(ARG "ALWAYS" "FOLDER;PKGCONFIG" "ROOMS;LIBRARIES" ${ARGN})
  set_property(GLOBAL APPEND PROPERTY relay_backend_names ${name})
  relay_backend_wanted(wanted ${name})
  if(NOT wanted AND NOT ARG_ALWAYS)
    set_property(GLOBAL APPEND PROPERTY relay_backends_left_out ${name})
    return()
  endif()
  if(ARG_PKGCONFIG)
    pkg_check_modules(${ARG_PKGCONFIG} REQUIRED IMPORTED_TARGET ${ARG_PKGCONFIG})
    list(APPEND ARG_LIBRARIES PkgConfig::${ARG_PKGCONFIG})
  endif()
  relay_room(${ARG_FOLDER} FOLDER backends/${ARG_FOLDER} ROOMS core config connector ${ARG_ROOMS}
             LIBRARIES ${ARG_LIBRARIES} REGISTERS)
endfunction()

# Generates the registry: one call for each backend that is in, one line for each that was left out.
function(relay_backends_done)
  get_property(names GLOBAL PROPERTY relay_backend_names)
  string(REPLACE "," ";" wanted "${RELAY_BACKENDS}")
  foreach(name IN LISTS wanted)
    if(NOT name STREQUAL "all" AND NOT name IN_LIST names)
      list(JOIN names ", " known)
      message(FATAL_ERROR "RELAY_BACKENDS: there is no backend '${name}'; it is all, or some of: ${known}")
    endif()
  endforeach()
  get_property(folders GLOBAL PROPERTY relay_backend_folders)
  get_property(left_out GLOBAL PROPERTY relay_backends_left_out)
  set(declarations "")
  set(calls "")
  foreach(folder IN LISTS folders)
    string(APPEND declarations
           "namespace relay::${folder} { void register_backend(relay::Registry&); }\n")
    string(APPEND calls "  relay::${folder}::register_backend(registry);\n")
  endforeach()
  foreach(name IN LISTS left_out)
    string(APPEND calls "  registry.leave_out(\"${name}\");\n")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/backends.cc CONTENT
"#include \"connector/registry.h\"
${declarations}namespace relay {
void register_backends(Registry& registry) {
${calls}}
}  // namespace relay
")
  add_library(relay_backends STATIC ${PROJECT_BINARY_DIR}/backends.cc)
  list(TRANSFORM folders PREPEND relay_)
  target_link_libraries(relay_backends PUBLIC relay_connector ${folders})
endfunction()

# relay_embed(library NAMESPACE room HEADER header TYPE type FUNCTION function FOLDER folder FILES file...):
# a library with these files as strings. The header declares the type, {name, text}, and the function,
# which returns them in that order. A name is the path in the folder; without a folder, the last part of it.
function(relay_embed library)
  cmake_parse_arguments(ARG "" "NAMESPACE;HEADER;TYPE;FUNCTION;FOLDER" "FILES" ${ARGN})
  set(output ${PROJECT_BINARY_DIR}/${library}.cc)
  set(embed ${PROJECT_SOURCE_DIR}/cmake/embed.cmake)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} "-DFILES=${ARG_FILES}" -DNAMESPACE=${ARG_NAMESPACE} -DHEADER=${ARG_HEADER}
            -DTYPE=${ARG_TYPE} -DFUNCTION=${ARG_FUNCTION} -DFOLDER=${ARG_FOLDER} -DOUTPUT=${output}
            -P ${embed}
    DEPENDS ${ARG_FILES} ${embed}
    VERBATIM)
  add_library(${library} STATIC ${output})
  target_include_directories(${library} PUBLIC ${PROJECT_SOURCE_DIR}/src)
endfunction()

# relay_schema_version(result folder): the number of the last migration in the folder, where they are
# numbered 0001, 0002 and so on.
function(relay_schema_version result folder)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.sql)
  list(SORT files)
  set(number 0)
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    math(EXPR number "${number} + 1")
    if(NOT name MATCHES "^0*${number}_")
      message(FATAL_ERROR "migration ${name} should have number ${number}")
    endif()
  endforeach()
  set(${result} ${number} PARENT_SCOPE)
endfunction()

# relay_embed_sql(library folder NAMESPACE room ALSO file...): the database side in the folder as strings inside
# the program, each named by its path in the folder, and other files. <room>/embedded_sql.h declares them.
function(relay_embed_sql library folder)
  cmake_parse_arguments(ARG "" "NAMESPACE" "ALSO" ${ARGN})
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*/*.sql)
  list(SORT files)
  relay_embed(${library} NAMESPACE ${ARG_NAMESPACE} HEADER ${ARG_NAMESPACE}/embedded_sql.h TYPE SqlFile
              FUNCTION embedded_sql FOLDER ${PROJECT_SOURCE_DIR}/${folder} FILES ${files} ${ARG_ALSO})
endfunction()

# relay_commit(library): a library with the commit that is built, which cli/commit.h declares.
function(relay_commit library)
  set(output ${PROJECT_BINARY_DIR}/commit.cc)
  add_custom_target(${library}_source
    COMMAND ${CMAKE_COMMAND} "-DCOMMIT=${RELAY_COMMIT}" -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUTPUT=${output}
            -P ${PROJECT_SOURCE_DIR}/cmake/commit.cmake
    BYPRODUCTS ${output}
    COMMENT ""
    VERBATIM)
  add_library(${library} STATIC ${output})
  add_dependencies(${library} ${library}_source)
  target_include_directories(${library} PUBLIC ${PROJECT_SOURCE_DIR}/src)
endfunction()

# relay_program(name library): the program src/apps/<name>, with all backends, its manual page, and what
# completes its commands in shells.
function(relay_program name library)
  add_executable(${name} ${PROJECT_SOURCE_DIR}/src/apps/${name}/main.cc)
  target_link_libraries(${name} PRIVATE ${library} relay_backends relay_allocator)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  install(TARGETS ${name} RUNTIME DESTINATION bin)

  set(folder ${PROJECT_BINARY_DIR}/share)
  set(files ${folder}/${name}.1 ${folder}/${name}.bash ${folder}/_${name} ${folder}/${name}.fish)
  add_custom_command(
    OUTPUT ${files}
    COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:${name}> -DNAME=${name} -DFOLDER=${folder}
            -P ${PROJECT_SOURCE_DIR}/cmake/share.cmake
    DEPENDS ${name} ${PROJECT_SOURCE_DIR}/cmake/share.cmake
    VERBATIM)
  add_custom_target(${name}_share ALL DEPENDS ${files})
  install(FILES ${folder}/${name}.1 DESTINATION share/man/man1)
  install(FILES ${folder}/${name}.bash DESTINATION share/bash-completion/completions RENAME ${name})
  install(FILES ${folder}/_${name} DESTINATION share/zsh/site-functions)
  install(FILES ${folder}/${name}.fish DESTINATION share/fish/vendor_completions.d)
endfunction()
