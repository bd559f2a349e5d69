// The description beside a shard: read, or refused; what is read prints as what it was.
#include "base/check.h"
#include "data/shard_meta.h"
#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  const auto meta = ParseShardMeta(Bytes(data, size));
  if (!meta.ok()) return 0;
  const auto again = ParseShardMeta(PrintShardMeta(*meta));
  CHECK(again.ok());
  CHECK(*again == *meta);
  return 0;
}
