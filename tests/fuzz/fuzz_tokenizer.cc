// tokenizer.json: a tokenizer that encodes and decodes, or a refusal.
#include "base/check.h"
#include "data/tokenizer.h"
#include "tests/fuzz/target.h"

// Two files in one input: the JSON, and a text to encode.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  const TwoFiles input = SplitInput(Bytes(data, size));
  const auto tokenizer = Tokenizer::Parse(input.first);
  if (!tokenizer.ok()) return 0;
  const auto again = Tokenizer::Parse(tokenizer->ToJson());
  CHECK(again.ok());
  const auto ids = tokenizer->Encode(input.second, {.allow_special = true});
  if (!ids.ok()) return 0;
  const auto decoded = tokenizer->Decode(*ids);
  CHECK(decoded.ok());
  CHECK_EQ(*decoded, input.second);  // no normalizer is accepted, and the words of a text are all of it
  const auto same = again->Encode(input.second, {.allow_special = true});
  CHECK(same.ok());
  CHECK(*same == *ids);
  return 0;
}
