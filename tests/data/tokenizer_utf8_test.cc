// Tests UTF-8 validation against a table of malformed sequences, and decoding against encoding.
#include <string>
#include <utility>
#include <vector>

#include "data/utf8.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

TEST(Utf8Test, EveryScalarValueSurvives) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), text.size()) << static_cast<uint32_t>(c);
    size_t offset = 0;
    ASSERT_EQ(NextCodePoint(text, &offset), c);
    ASSERT_EQ(offset, text.size());
  }
}

TEST(Utf8Test, NamesTheFirstBadByte) {
  const std::vector<std::pair<std::string, size_t>> cases = {
      {"\x80", 0},                          // a continuation alone
      {"abc\xC3", 3},                       // truncated
      {"\xC0\x80", 0},                      // overlong NUL
      {"\xC1\xBF", 0},                      // overlong
      {"\xE0\x9F\xBF", 0},                  // overlong
      {"\xF0\x8F\xBF\xBF", 0},              // overlong
      {"12345678\xED\xA0\x80", 8},          // surrogate
      {"\xF4\x90\x80\x80", 0},              // above U+10FFFF
      {"\xF5\x80\x80\x80", 0},              // no such lead
      {"\xFF", 0},                          //
      {"12345678901234567\xE2\x82", 17},    // truncated after a long ASCII run
      {"\xE2\x82\xAC\xE2\x28\xA1", 3},      // bad second byte
      {"\xE2\x82\x28", 0},                  // bad third byte
      {"\xF0\x9F\x98\x80\xF0\x9F\x98", 4},  // truncated emoji
  };
  for (const auto& [text, offset] : cases) {
    EXPECT_EQ(FindInvalidUtf8(text), offset) << text;
    EXPECT_FALSE(CheckUtf8(text).ok());
  }
  EXPECT_EQ(CheckUtf8("abc\xC3").message(), "invalid UTF-8 at byte 3 (0xc3)");
  EXPECT_TRUE(CheckUtf8("").ok());
}

}  // namespace
}  // namespace shoestring
