// The style guide as a test: the rules of the house over this repository, and each rule over a small tree that breaks
// it.
#include "base/check.h"
#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tidy/code_outline.h"
#include "tests/tidy/rules.h"

namespace shoestring::tidy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// The tests run in the root of the repository.
const Tree& Repository() {
  static const Tree* const tree = [] {
    absl::StatusOr<Tree> loaded = LoadTree(PosixFileSystem(), ".");
    CHECK(loaded.ok());
    return new Tree(*std::move(loaded));
  }();
  return *tree;
}

std::string Lines(const Findings& findings) {
  std::string lines;
  for (const std::string& finding : findings) lines += "\n  " + finding;
  return lines;
}

struct Rule {
  const char* name;
  Findings (*check)(const Tree&);
};

void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

class RepositoryTest : public testing::TestWithParam<Rule> {};

TEST_P(RepositoryTest, Keeps) {
  const Findings findings = GetParam().check(Repository());
  EXPECT_TRUE(findings.empty()) << Lines(findings);
}

INSTANTIATE_TEST_SUITE_P(Rule, RepositoryTest,
                         testing::Values(Rule{"Layers", CheckLayers}, Rule{"SourcesAreBuilt", CheckSourcesAreBuilt},
                                         Rule{"FileLengths", CheckFileLengths},
                                         Rule{"FunctionLengths", CheckFunctionLengths},
                                         Rule{"NoMutableGlobals", CheckMutableGlobals},
                                         Rule{"NoEnvironmentReads", CheckEnvironmentReads},
                                         Rule{"FirstLines", CheckFirstLines}, Rule{"NoMarkers", CheckMarkers},
                                         Rule{"NoMachinePaths", CheckMachinePaths}, Rule{"Links", CheckLinks}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RepositoryTest, IsSeen) {
  bool saw_this_file = false;
  for (const SourceFile& file : Repository().files) {
    saw_this_file |= file.path == "tests/tidy_test.cc";
    EXPECT_THAT(file.path, testing::Not(StartsWith("build")));
  }
  EXPECT_TRUE(saw_this_file);
}

TEST(RulesTest, LayersGoDownOnly) {
  const Tree tree{{
      {"base/a.h", "#include \"kernels/k.h\"\n"},
      {"configs/c.proto", "import \"configs/d.proto\";\nimport \"data/e.proto\";\n"},
      {"data/a.cc", "#include <x>\n#include \"base/a.h\"\n#include \"data/b.h\"\n#include \"parallel/m.h\"\n"},
      {"kernels/a.cu", "#include \"b.cuh\"\n"},
      {"tests/data/a.cc", "#include \"launch/l.h\"\n#include \"tests/x.h\"\n#include \"absl/x.h\"\n"},
      {"trainer/a.cc", "\n  #  include \"tests/x.h\"\n"},
  }};
  EXPECT_THAT(CheckLayers(tree), ElementsAre("base/a.h:1: base includes upwards: 'kernels/k.h'",
                                             "configs/c.proto:2: configs includes upwards: 'data/e.proto'",
                                             "data/a.cc:4: data includes sideways: 'parallel/m.h'",
                                             "kernels/a.cu:1: include of 'b.cuh' without its folder",
                                             "trainer/a.cc:2: trainer includes upwards: 'tests/x.h'"));
}

TEST(RulesTest, SourcesAreNamedAndHeadersIncluded) {
  const Tree tree{{
      {"base/CMakeLists.txt", "library(a.cc sub/b.cc # c.cc\n ${PROJECT_SOURCE_DIR}/tests/d.cc)\n"},
      {"base/a.cc", "#include \"base/used.h\"\n"},
      {"base/c.cc", ""},
      {"base/sub/b.cc", ""},
      {"base/unused.h", ""},
      {"base/used.h", ""},
      {"cmake/x.cmake", "file(GLOB all *.cc)\n"},
      {"docs/example.cc", ""},
      {"tests/a.cc", ""},
      {"tests/d.cc", ""},
  }};
  EXPECT_THAT(CheckSourcesAreBuilt(tree), ElementsAre("base/c.cc:1: no CMakeLists.txt names this source",
                                                      "base/unused.h:1: nothing includes this header",
                                                      "cmake/x.cmake:1: sources are listed by name, not by file(GLOB",
                                                      "tests/a.cc:1: no CMakeLists.txt names this source"));
}

std::string Repeat(const std::string& line, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += line;
  return text;
}

TEST(RulesTest, FilesHaveAtMost500Lines) {
  Tree tree{{{"base/a.cc", Repeat("\n", 500)},
             {"base/b.cc", Repeat("\n", 500) + "x"},
             {"docs/long.md", Repeat("\n", 900)},
             {"launch/a.sh", Repeat("#\n", 501)}}};
  EXPECT_THAT(CheckFileLengths(tree),
              ElementsAre("base/b.cc:501: 501 lines; at most 500", "launch/a.sh:501: 501 lines; at most 500"));
  for (char name = 'a'; name < 'a' + 11; ++name) tree.files.push_back({std::string("base/") + name + ".h", ""});
  EXPECT_THAT(CheckFileLengths(tree).back(), HasSubstr("11 headers; at most 10"));
}

TEST(RulesTest, FunctionsHaveAtMost60Lines) {
  const std::string just = "int Fits(int x) {\n" + Repeat("  ++x;\n", 58) + "}\n";
  const std::string over = "template <typename T>\nT F(T x) {\n" + Repeat("  if (x) { ++x; }\n", 58) + "}\n";
  const std::string method =
      "class C : public B<int> {\n public:\n  C() : a_{1}, b_(2) {\n" + Repeat("\n", 60) + "  }\n};\n";
  const std::string table = "const std::vector<int> kTable = {\n" + Repeat("  1,\n", 90) + "};\n";
  const std::string test = "TEST(A, B) {\n" + Repeat("// } {\n\"}{\";\n", 30) + "}\n";
  const std::string wide_class = "struct S {\n" + Repeat("  int F(int x = 1) { return 1; }\n", 70) + "};\n";
  const Tree tree{{{"data/a.cc", "namespace a {\nnamespace {\n" + just + over + "}\n}\n"},
                   {"data/b.h", method + table},
                   {"data/c.cc", test},
                   {"data/d.cc", wide_class},
                   {"kernels/a.cu", over}}};
  EXPECT_THAT(CheckFunctionLengths(tree),
              ElementsAre("data/a.cc:63: function 'template <typename T> T F' has 61 lines; at most 60",
                          "data/b.h:3: function 'C' has 62 lines; at most 60",
                          "data/c.cc:1: function 'TEST' has 62 lines; at most 60"));
}

Findings MutableGlobalsOf(const std::string& code) { return CheckMutableGlobals({{{"data/a.cc", code}}}); }

TEST(RulesTest, MutableGlobalsAreFound) {
  for (const char* code : {
           "int calls = 0;",
           "namespace a { namespace { bool ready; } }",
           "static std::vector<int> cache;",
           "std::map<std::string, int> table = {{\"a\", 1}};",
           "const char* name = \"x\";",
           "int counts[4];",
           "thread_local int depth = 0;",
           "constinit int value = 3;",
           "inline double scale{1.0};",
           "std::function<void(int)> hook;",
           "extern int shared;",
           "struct { int x; } state;",
           "class C { static int instances_; };",
           "struct C { inline static std::mutex lock; };",
           "int F() { static int calls = 0; return ++calls; }",
           "void F() { if (x) { static std::once_flag once; } }",
           "void F() { thread_local std::string buffer; }",
           "void F() { G([] { static Pool pool(3); }); }",
           "int F() { static const char* name = G(); }",
           "std::atomic<int> counter{0};",
           "std::mutex mutex;",
       }) {
    EXPECT_EQ(MutableGlobalsOf(code).size(), 1u) << code;
  }
}

TEST(RulesTest, ConstantsAndFunctionsAreNoMutableGlobals) {
  for (const char* code : {
           "constexpr int kCalls = 0;",
           "const std::string kName = \"x\";",
           "const char* const kName = \"x\";",
           "inline constexpr double kScale{1.0};",
           "constexpr const char* kNames[] = {\"a\", \"b\"};",
           "const char* const kNames[] = {\"a\"};",
           "int F(int x = 3);",
           "static int F();",
           "using A = int;",
           "template <typename T> constexpr bool kIs = false;",
           "class C; struct D;",
           "extern const int kShared;",
           "enum class E { kA = 1, kB };",
           "struct C { int x = 0; std::string y; static constexpr int kZ = 1; };",
           "class C { static int F(); static const int kLimit = 3; };",
           "std::vector<int> F() { int x = 0; return {x}; }",
           "int F() { static const auto* const table = new T{{1, 2}}; return G(*table); }",
           "int F() { static constexpr int kTable[] = {1}; return static_cast<int>(kTable[0]); }",
           "static_assert(sizeof(int) == 4);",
           "// int x = 0;\n",
           "#define X \\\n int x = 0;\n",
           "bool operator==(const A& a, const B& b) { return true; }",
           "struct A { bool operator<(const A&) const = default; };",
           "const char* Name(int x) { return \"int y;\"; }",
           "INSTANTIATE_TEST_SUITE_P(A, B, Values(1));",
           "A::A() = default;",
           "auto F() -> std::vector<int> { return {}; }",
           "enum E { kA }; int F();",
       }) {
    EXPECT_THAT(MutableGlobalsOf(code), IsEmpty()) << code;
  }
}

TEST(RulesTest, OnlyLaunchReadsTheEnvironment) {
  const Tree tree{{{"data/a.cc", "\nauto x = std::getenv(\"HOME\");\n"},
                   {"data/b.cc", "// getenv(\"HOME\")\nconst char* const k = \"getenv(\";\n"},
                   {"launch/a.cc", "auto x = getenv(\"HOME\");\n"},
                   {"parallel/c.h", "char* x = secure_getenv (\"HOME\");\nauto e = ::environ;\n"}}};
  const Findings findings = CheckEnvironmentReads(tree);
  ASSERT_EQ(findings.size(), 3u) << Lines(findings);
  EXPECT_THAT(findings,
              ElementsAre(StartsWith("data/a.cc:2"), StartsWith("parallel/c.h:1"), StartsWith("parallel/c.h:2")));
}

TEST(RulesTest, FilesOpenWithTheirPurpose) {
  const Tree tree{{{"CMakeLists.txt", "project(x)\n"},
                   {"base/a.cc", "// What this is for.\n"},
                   {"base/b.cc", "#include <x>\n"},
                   {"base/c.h", "// c.h\n"},
                   {"base/d.cc", ""},
                   {"ci", "#!/bin/sh\nset -e\n"},
                   {"docs/a.md", "Text.\n"},
                   {"tools/a.py", "#!/usr/bin/env python3\n\"\"\"Draws the curves.\"\"\"\n"},
                   {"tools/a.sh", "#!/bin/bash\n# Runs all of it.\n"}}};
  EXPECT_THAT(CheckFirstLines(tree),
              ElementsAre(StartsWith("CMakeLists.txt:1"), StartsWith("base/b.cc:1"), StartsWith("base/c.h:1"),
                          StartsWith("base/d.cc:1"), StartsWith("ci:2")));
}

// Spelled in halves, so that the fixtures do not break the rules that they test.
TEST(RulesTest, MarkersAreFoundInCodeAndProse) {
  const Tree tree{{{"base/a.cc",
                    "// TO"
                    "DO: later\n// XX"
                    "X\nint HA"
                    "CKER;\n"},
                   {"docs/a.md",
                    "FIX"
                    "ME\n"}}};
  EXPECT_THAT(CheckMarkers(tree), ElementsAre("base/a.cc:1: marker of undone work 'TO"
                                              "DO'",
                                              "base/a.cc:2: marker of undone work 'XX"
                                              "X'",
                                              "docs/a.md:1: marker of undone work 'FIX"
                                              "ME'"));
}

TEST(RulesTest, MachinePathsAreFound) {
  const Tree tree{{{"base/a.cc",
                    "Open(\"/ho"
                    "me/ann/x\");\n// ./wo"
                    "rk/x and https://a.org/wo"
                    "rk/x are fine\n"},
                   {"docs/a.md",
                    "see /wo"
                    "rk/x\n"}}};
  EXPECT_THAT(CheckMachinePaths(tree), ElementsAre(StartsWith("base/a.cc:1: path of one machine '/ho"
                                                              "me/ann/x"),
                                                   StartsWith("docs/a.md:1: path of one machine '/wo"
                                                              "rk/x")));
}

TEST(RulesTest, RelativeLinksResolve) {
  const Tree tree{{{"README.md", "[a](docs/a.md) [b](docs) [c](https://x.org/y) [d](#here)\n"},
                   {"docs/a.md", "[up](../README.md#top) [gone](gone.md)\n\n[root](../) [out](../../x.md)\n"}}};
  EXPECT_THAT(CheckLinks(tree), ElementsAre("docs/a.md:1: link to 'gone.md' leads nowhere",
                                            "docs/a.md:3: link to '../../x.md' leads nowhere"));
}

TEST(CodeOutlineTest, BlanksKeepLinesAndCode) {
  EXPECT_EQ(BlankCommentsAndLiterals("a /* {\n} */ b // {\n\"{\\\"\" '{' 1'000 c"),
            "a     \n     b     \n          1'000 c");
  EXPECT_EQ(BlankCommentsAndLiterals("R\"x({\n)\")x\" d\n#define A { \\\n }\ne"),
            "     \n      d\n             \n  \ne");
}

}  // namespace
}  // namespace shoestring::tidy
