// Megatron's index and tokens: a shard is opened and read whole, or refused.
#include <algorithm>

#include "base/check.h"
#include "data/shard.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  const TwoFiles input = SplitInput(Bytes(data, size));
  MemoryFiles files({{IdxPath("s"), std::string(input.first)}, {BinPath("s"), std::string(input.second)}});
  ShardOpenOptions options;
  options.plain = PlainShard{.tokenizer_fingerprint = "t", .vocab_size = 300, .eos_id = 1};
  const auto shard = ShardReader::Open(files, "s", options);
  if (!shard.ok()) return 0;
  int64_t tokens = 0;
  for (int64_t i = 0; i < (*shard)->sequences(); ++i) {
    CHECK_EQ((*shard)->SequenceStart(i), tokens);
    tokens += (*shard)->SequenceLength(i);
  }
  CHECK_EQ(tokens, (*shard)->tokens());
  std::vector<int32_t> ids(std::min<int64_t>(tokens, 1 << 16));
  const absl::Status status = (*shard)->Read(tokens - static_cast<int64_t>(ids.size()), ids.size(), ids.data());
  if (status.ok()) {
    for (const int32_t id : ids) CHECK_LT(id, 300);
  }
  (*shard)->VerifyAll().IgnoreError();
  return 0;
}
