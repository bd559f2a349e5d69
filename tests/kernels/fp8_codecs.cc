// Compiled once a level, with that level's flags and CODECS_OF_LEVEL as the name of its function.
#include "tests/kernels/fp8_codecs.h"

#include "kernels/cpu/fp8_level.h"

namespace shoestring {
namespace {

using namespace simd;  // NOLINT: this file is one level

template <typename Format>
void Encode(const float* x, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; i += kLanes) StoreU8N(codes + i, EncodeSmall<Format>(Load(x + i)), kLanes);
}

void EncodeWide(const float* x, int64_t count, uint16_t* codes) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const I32x16 code = EncodeSmall<E5M6Format>(Load(x + i));
    uint8_t low[kLanes], high[kLanes];
    StoreU8N(low, code, kLanes);
    StoreU8N(high, ShiftRight<8>(code), kLanes);
    for (int j = 0; j < kLanes; ++j) codes[i + j] = static_cast<uint16_t>(low[j] | high[j] << 8);
  }
}

template <typename Format>
void Decode(const uint8_t* codes, int64_t count, float* x) {
  for (int64_t i = 0; i < count; i += kLanes) Store(x + i, DecodeSmall<Format>(LoadU8N(codes + i, kLanes)));
}

}  // namespace

Fp8Codecs CODECS_OF_LEVEL() {
  return {Encode<E4M3Format>, Encode<E5M2Format>, EncodeWide, Decode<E4M3Format>, Decode<E5M2Format>};
}

}  // namespace shoestring
