# Compiler options that every target of ours shares, and the two functions that declare a library and a test.

add_library(shoestring_options INTERFACE)
# Not for nvcc, which has words of its own for them.
target_compile_options(shoestring_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wno-sign-compare;-ffp-contract=off>")
target_include_directories(shoestring_options INTERFACE ${PROJECT_SOURCE_DIR})
target_include_directories(shoestring_options SYSTEM INTERFACE ${PROJECT_BINARY_DIR})
if(SHOESTRING_SANITIZE)
  # -O1: GCC takes half as long again over instrumented code at -O2. What must be fast (kernels) raises it itself.
  target_compile_options(shoestring_options INTERFACE -O1 -fsanitize=${SHOESTRING_SANITIZE} -fno-omit-frame-pointer
                                                      -fno-sanitize-recover=all)
  target_link_options(shoestring_options INTERFACE -fsanitize=${SHOESTRING_SANITIZE})
endif()
if(SHOESTRING_FUZZ)
  # Coverage for libFuzzer. Clang knows neither all of GCC's warnings nor its loop pragmas.
  target_compile_options(shoestring_options INTERFACE -fsanitize=fuzzer-no-link -Wno-unknown-warning-option
                                                      -Wno-unknown-pragmas -Wno-pass-failed)
endif()

# shoestring_library(NAME SOURCES ... DEPS ...): one static library a folder, sources listed by name.
function(shoestring_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC shoestring_options ${arg_DEPS})
endfunction()

# shoestring_test(NAME SOURCES ... DEPS ... [LABELS ...]): one GoogleTest program, registered with CTest under its name.
function(shoestring_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE shoestring_options ${arg_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 600)
endfunction()

# shoestring_bundle(TARGET KIND program|test|bench): packed by tests/gpu/bundle.sh, if built. tests/gpu/run.sh runs tests and
# benches of the bundle by themselves.
function(shoestring_bundle target)
  cmake_parse_arguments(arg "" "KIND" "" ${ARGN})
  set_property(GLOBAL APPEND_STRING PROPERTY SHOESTRING_BUNDLE "${arg_KIND} $<TARGET_FILE:${target}>\n")
endfunction()

# shoestring_opens_module(TARGET): a program that opens the CUDA module, which takes symbols of base/ and kernels/ from it:
# all of them are linked, whether the program needs them or not, and exported.
function(shoestring_opens_module target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON)
  foreach(library shoestring_base shoestring_kernels)
    target_link_options(${target} PRIVATE "LINKER:--whole-archive,$<TARGET_FILE:${library}>,--no-whole-archive")
  endforeach()
endfunction()
