// Tests of the field reference: it is up to date, and every field of the schema has its comment.
#include "configs/reference.h"

#include "gmock/gmock.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using ::testing::HasSubstr;

TEST(ReferenceTest, ThePageInDocsIsUpToDate) {
  const std::string fresh = GenerateReference(SchemaDescriptors());
  const std::string written = JoinPath(::testing::TempDir(), "config_reference.md");
  ASSERT_TRUE(WriteFile(PosixFileSystem(), written, fresh).ok());
  const absl::StatusOr<std::string> page = ReadFile(PosixFileSystem(), "docs/config_reference.md");
  ASSERT_TRUE(page.ok()) << page.status() << "\ncp " << written << " docs/config_reference.md";
  EXPECT_TRUE(*page == fresh) << "the schema changed; mend with: cp " << written << " docs/config_reference.md";
}

TEST(ReferenceTest, EveryFieldAndMessageHasAComment) {
  const std::vector<std::string> lines = absl::StrSplit(GenerateReference(SchemaDescriptors()), '\n');
  int fields = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_THAT(lines[i], ::testing::Not(::testing::MatchesRegex("\\| `.*\\|  \\|"))) << "a field without a comment";
    fields += lines[i].rfind("| `", 0) == 0;
    if (lines[i].rfind("### ", 0) != 0) continue;
    EXPECT_FALSE(lines[i + 2].empty()) << lines[i] << " has no comment";
  }
  EXPECT_GE(fields, 150);
}

TEST(ReferenceTest, SaysTypesRulesAndChoices) {
  const std::string page = GenerateReference(SchemaDescriptors());
  EXPECT_THAT(page, HasSubstr("| `layers` | int32 | must be set; at least 1 and at most 4096 | Transformer layers"));
  EXPECT_THAT(page, HasSubstr("| `phase` | list of [Phase](#phase) | must be set |"));
  EXPECT_THAT(page, HasSubstr("| `dualpipe` | [DualPipe](#dualpipe) | one choice of schedule |"));
  EXPECT_THAT(page, HasSubstr("| `zero1` | bool | default false |"));
  EXPECT_THAT(page, HasSubstr("| `layout` | [LayoutConfig](#layoutconfig) | run only |"));
  EXPECT_THAT(page, HasSubstr("- `SIGMOID`: Affinity of each expert by itself"));
}

}  // namespace
}  // namespace shoestring::config
