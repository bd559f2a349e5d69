// Text through the real tokenizer to shards and back: what training will read is what was written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "data/token_source.h"
#include "tests/base/few_threads.h"
#include "tests/data/shard_fixture.h"
#include "tests/data/tokenizer_fixture.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

class PrepareTokenizerTest : public ::testing::Test {
 protected:
  PrepareTokenizerTest() {
    MustWrite(home_ / "a.txt", text_);
    options_.inputs = {home_ / "a.txt"};
    options_.reader.split = TextSplit::kBlankLines;
    options_.train_prefix = home_ / "train";
    options_.packing = Packing::kConcatenate;
  }
  std::vector<int32_t> Prepared() {
    const auto summary = Prepare(PosixFileSystem(), EncoderOf(tokenizer_), options_, nullptr);
    if (!summary.ok()) ADD_FAILURE() << summary.status();
    const auto shard = ShardReader::Open(PosixFileSystem(), options_.train_prefix, {});
    std::vector<int32_t> tokens(static_cast<size_t>((*shard)->tokens()));
    EXPECT_TRUE((*shard)->Read(0, (*shard)->tokens(), tokens.data()).ok());
    return tokens;
  }

  TestDirectory home_;
  // The second document tries to forge its end.
  std::string text_ =
      "abc ab!\n\nthe caf\xC3\xA9 <\xEF\xBD\x9C"
      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C> on\n\nlast\n";
  Tokenizer tokenizer_ = MakeTokenizer(SmallSpec({{"a", "b"}, {"ab", "c"}, {"\n", "\n"}, {"!", "\n\n"}}));
  PrepareOptions options_;
};

TEST_F(PrepareTokenizerTest, DecodesToTheTextWithAnEosADocument) {
  options_.fim_rate = 0.0;
  std::vector<int32_t> tokens = Prepared();
  const int32_t eos = tokenizer_.special_ids().eos;
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), eos), 3);
  tokens.erase(std::remove(tokens.begin(), tokens.end(), eos), tokens.end());
  EXPECT_EQ(*tokenizer_.Decode(tokens), text_);
}

TEST_F(PrepareTokenizerTest, MergedTokensAreSplitAtTheRate) {
  options_.fim_rate = 0.0;
  const size_t merged = Prepared().size();
  options_.overwrite = true;
  options_.token_split_rate = 1.0;
  std::vector<int32_t> tokens = Prepared();
  EXPECT_EQ(tokens.size(), merged + 1);  // "!\n\n" became "!" and "\n\n"
}

TEST_F(PrepareTokenizerTest, OneThreadDoesWhereTheSystemGivesNoOther) {
  const std::vector<int32_t> wanted = Prepared();
  options_.train_prefix = home_ / "again";
  options_.threads = 4;
  ASSERT_EQ(chmod(home_.path().c_str(), 0777), 0);  // who may have few threads is not root
  EXPECT_EXIT(
      {
        AllowFewThreads(0);
        std::exit(Prepared() == wanted ? 0 : 1);
      },
      testing::ExitedWithCode(0), "the system gives 0 of 4 threads");
}

TEST_F(PrepareTokenizerTest, AnotherTokenizerCannotTrainOnTheShard) {
  Prepared();
  const Tokenizer other = MakeTokenizer(SmallSpec({{"a", "b"}}));
  TokenSourceOptions source;
  source.sources = {{options_.train_prefix, 1.0}};
  source.sampler = {4, 1, 0, true};
  source.tokenizer_fingerprint = tokenizer_.Fingerprint();
  EXPECT_TRUE(BlendedSource::Open(PosixFileSystem(), source).ok());
  source.tokenizer_fingerprint = other.Fingerprint();
  const auto refused = BlendedSource::Open(PosixFileSystem(), source);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(refused.status().message(), HasSubstr(other.Fingerprint()));
}

}  // namespace
}  // namespace shoestring
