// Tests strict JSON: values of every kind, each thing that is refused, at once and in a short line, and large files.
#include "base/strict_json.h"

#include <ctime>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Fault(const std::string& text) {
  const absl::StatusOr<json> parsed = ParseStrictJson(text);
  if (parsed.ok()) return "accepted";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

std::string Repeat(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(StrictJsonTest, ReadsWhatTheLibraryReads) {
  for (const char* text :
       {"null", "true", " [] ", "{}", "-3", "18446744073709551615", "-0.5e3", R"("\u00e9\ud83d\ude00é")",
        R"({"a": {"b": [1, [2, {"c": null}], "x"], "": false}, "b": {"b": 1.5}})", R"([{"a": 1}, {"a": 1}])"}) {
    const absl::StatusOr<json> parsed = ParseStrictJson(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, json::parse(text)) << text;
    EXPECT_EQ(parsed->type(), json::parse(text).type()) << text;
  }
}

TEST(StrictJsonTest, RefusesBadSyntax) {
  EXPECT_THAT(Fault(""), StartsWith("parse error at line 1, column 1"));
  EXPECT_THAT(Fault("{\n\"version\": }"), StartsWith("parse error at line 2, column 12"));
  EXPECT_THAT(Fault("{} {}"), HasSubstr("expected end of input"));
  EXPECT_THAT(Fault("[1, 2,]"), HasSubstr("parse error at line 1, column 7"));
  EXPECT_THAT(Fault("// a\n1"), HasSubstr("parse error at line 1"));
  EXPECT_THAT(Fault("[1e999]"), HasSubstr("number overflow parsing '1e999'"));
  EXPECT_THAT(Fault("{\"a\": \"\xFF\"}"),
              AllOf(StartsWith("parse error at line 1, column 8"), HasSubstr("ill-formed UTF-8"), HasSubstr("\\xff")));
  EXPECT_THAT(Fault("\"\xED\xA0\x80\""), HasSubstr("ill-formed UTF-8"));
}

TEST(StrictJsonTest, RefusesWhatTheLibraryPassesOver) {
  EXPECT_EQ(Fault("{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}"), "the key \"b\" appears twice");
  EXPECT_EQ(Fault(R"({"\u0062": 1, "b": 3})"), "the key \"b\" appears twice");
  EXPECT_EQ(Fault(std::string("{}\0{]", 5)), "byte 2 is zero");
  EXPECT_EQ(Fault(std::string("{}\n\0", 4)), "byte 3 is zero");
  EXPECT_THAT(Fault("\xEF\xBB\xBF{}"), StartsWith("begins with a byte-order mark; "));
  EXPECT_EQ(Fault(std::string(64, '[') + std::string(64, ']')), "accepted");
  EXPECT_EQ(Fault(std::string(65, '[') + std::string(65, ']')), "nested deeper than 64");
  EXPECT_EQ(Fault(Repeat("{\"a\":", 65) + "1" + Repeat("}", 65)), "nested deeper than 64");
}

TEST(StrictJsonTest, StopsAtTheFirstFault) {
  // What follows is no JSON, and goes unsaid.
  EXPECT_EQ(Fault(std::string(1000000, '[')), "nested deeper than 64");
  EXPECT_EQ(Fault("{\"a\": 1, \"a\": [}"), "the key \"a\" appears twice");
}

TEST(StrictJsonTest, SaysItShortly) {
  for (const std::string& bad : {"[\"" + std::string(1000000, 'a'), std::string(1000000, '1') + "x",
                                 "[" + std::string(1000000, '9') + "]", "\"" + Repeat("\xC3\xBC", 500000) + "\n\""}) {
    EXPECT_LT(Fault(bad).size(), 600u);
  }
  EXPECT_THAT(Fault("[\"" + std::string(1000000, 'a') + "bc"),
              AllOf(HasSubstr("column 1000005"), HasSubstr("missing closing quote; last read: '...aaa"),
                    ::testing::EndsWith("abc'")));
  const std::string key = "\"" + std::string(1000000, 'k') + "\": 1";
  EXPECT_EQ(Fault(absl::StrCat("{", key, ", ", key, "}")),
            absl::StrCat("the key \"", std::string(80, 'k'), "...\" appears twice"));
}

TEST(StrictJsonTest, AMillionObjectsTakeLinearTime) {
  std::string members;
  for (int i = 0; i < 500000; ++i) absl::StrAppend(&members, i == 0 ? "" : ",", "\"", i, "\":{}");
  const std::string text = absl::StrCat("{\"list\":[{}", Repeat(",{}", 499999), "],\"members\":{", members, "}}");
  const double before = CpuSeconds();
  const absl::StatusOr<json> parsed = ParseStrictJson(text);
  EXPECT_LT(CpuSeconds() - before, 30);  // a second; looking through the parent at the end of each takes minutes
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->at("list").size(), 500000u);
  EXPECT_EQ(parsed->at("members").size(), 500000u);
}

}  // namespace
}  // namespace shoestring
