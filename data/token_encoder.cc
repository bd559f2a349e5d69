// The tokenizer, seen as an encoder.
#include "data/token_encoder.h"

namespace shoestring {

TokenEncoder EncoderOf(const Tokenizer& tokenizer) {
  TokenEncoder encoder;
  encoder.encode = [&tokenizer](absl::string_view text) { return tokenizer.Encode(text); };
  encoder.split_merged = [&tokenizer](absl::Span<const int32_t> ids, double rate, const Rng& rng) {
    return tokenizer.SplitMergedTokens(ids, rate, rng);
  };
  encoder.fingerprint = tokenizer.Fingerprint();
  encoder.vocab_size = tokenizer.vocab_size();
  encoder.eos = tokenizer.special_ids().eos;
  encoder.fim_begin = tokenizer.special_ids().fim_begin;
  encoder.fim_hole = tokenizer.special_ids().fim_hole;
  encoder.fim_end = tokenizer.special_ids().fim_end;
  return encoder;
}

}  // namespace shoestring
